// Loads an exported folder as TF Serving's bundle factory does, without Python.
//
//   serving_loader FOLDER WIDTH HEIGHT CHANNELS PNG...
//
// Looks the signatures up by name, replays the warm-up requests, asks serving_default for a grey ramp and
// serving_bytes for the PNG files, tries a wrong shape, and prints what it finds as one JSON object.
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/lib/io/record_reader.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/public/session.h"

using tensorflow::DT_STRING;
using tensorflow::DT_UINT8;
using tensorflow::SavedModelBundle;
using tensorflow::Status;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::tstring;

namespace {

// Runs a signature; its one input is known by its alias.
Status Ask(const SavedModelBundle& bundle, const std::string& signature, const std::string& alias, const Tensor& input,
           const std::string& output, Tensor* answer) {
  const auto& definitions = bundle.GetSignatures();
  const auto found = definitions.find(signature);
  if (found == definitions.end()) return absl::NotFoundError("no signature " + signature);
  const auto& definition = found->second;
  std::vector<Tensor> outputs;
  Status status = bundle.session->Run({{definition.inputs().at(alias).name(), input}},
                                      {definition.outputs().at(output).name()}, {}, &outputs);
  if (status.ok()) *answer = outputs[0];
  return status;
}

std::string Numbers(const Tensor& tensor) {
  std::ostringstream text;
  text.precision(9);
  const auto flat = tensor.flat<float>();
  for (int i = 0; i < flat.size(); ++i) text << (i ? "," : "") << flat(i);
  return "[" + text.str() + "]";
}

Tensor Ramp(int images, int height, int width, int channels) {
  Tensor result(DT_UINT8, TensorShape({images, height, width, channels}));
  auto flat = result.flat<tensorflow::uint8>();
  for (int i = 0; i < flat.size(); ++i) flat(i) = static_cast<tensorflow::uint8>(i % 256);
  return result;
}

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The fields of a message in protobuf's wire format, as far as a PredictionLog needs them: those with a length.
std::vector<std::pair<int, std::string>> Fields(const std::string& message) {
  std::vector<std::pair<int, std::string>> result;
  size_t place = 0;
  const auto number = [&] {
    tensorflow::uint64 value = 0;
    for (int shift = 0; place < message.size(); shift += 7) {
      const unsigned char byte = message[place++];
      value |= static_cast<tensorflow::uint64>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  while (place < message.size()) {
    const auto tag = number();
    if (tag % 8 != 2) {
      number();
      continue;
    }
    const auto size = number();
    result.emplace_back(tag / 8, message.substr(place, size));
    place += size;
  }
  return result;
}

std::string Field(const std::string& message, int wanted) {
  for (const auto& [tag, content] : Fields(message)) {
    if (tag == wanted) return content;
  }
  return "";
}

// PredictionLog.predict_log (6) .request (1), of which model_spec (1) .signature_name (3) and inputs (2): {key, tensor}.
Status Replay(const SavedModelBundle& bundle, const std::string& record) {
  const std::string request = Field(Field(record, 6), 1);
  const std::string signature = Field(Field(request, 1), 3);
  const std::string input = Field(request, 2);
  tensorflow::TensorProto proto;
  Tensor tensor, answer;
  if (!proto.ParseFromString(Field(input, 2)) || !tensor.FromProto(proto)) {
    return absl::InvalidArgumentError("not a tensor");
  }
  return Ask(bundle, signature, Field(input, 1), tensor, "logits", &answer);
}

int ReplayAll(const SavedModelBundle& bundle, const std::string& path) {
  std::unique_ptr<tensorflow::RandomAccessFile> file;
  TF_CHECK_OK(tensorflow::Env::Default()->NewRandomAccessFile(path, &file));
  tensorflow::io::RecordReader reader(file.get());
  tensorflow::uint64 offset = 0;
  tstring record;
  int count = 0;
  while (reader.ReadRecord(&offset, &record).ok()) {
    TF_CHECK_OK(Replay(bundle, std::string(record)));
    ++count;
  }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argv[1];
  const int width = std::stoi(argv[2]), height = std::stoi(argv[3]), channels = std::stoi(argv[4]);
  SavedModelBundle bundle;
  TF_CHECK_OK(tensorflow::LoadSavedModel({}, {}, folder, {"serve"}, &bundle));
  std::cout << "{\"signatures\": [";
  const char* comma = "";
  for (const auto& [name, definition] : bundle.GetSignatures()) {
    std::cout << comma << '"' << name << '"';
    comma = ", ";
  }
  std::cout << "], \"replayed\": " << ReplayAll(bundle, folder + "/assets.extra/tf_serving_warmup_requests");

  Tensor answer;
  TF_CHECK_OK(Ask(bundle, "serving_default", "images", Ramp(3, height, width, channels), "logits", &answer));
  std::cout << ", \"ramp\": " << Numbers(answer);
  Tensor files(DT_STRING, TensorShape({argc - 5}));
  for (int i = 5; i < argc; ++i) files.flat<tstring>()(i - 5) = Read(argv[i]);
  TF_CHECK_OK(Ask(bundle, "serving_bytes", "image_bytes", files, "logits", &answer));
  std::cout << ", \"files\": " << Numbers(answer);

  TF_CHECK_OK(Ask(bundle, "serving_default", "images", Ramp(0, height, width, channels), "logits", &answer));
  std::cout << ", \"empty\": " << answer.dim_size(0);
  const Status wrong = Ask(bundle, "serving_default", "images", Ramp(1, height - 1, width, channels), "logits", &answer);
  std::cout << ", \"wrong_shape\": " << static_cast<int>(wrong.code());
  files.flat<tstring>()(0) = "no image";
  const Status broken = Ask(bundle, "serving_bytes", "image_bytes", files, "logits", &answer);
  std::cout << ", \"no_image\": " << static_cast<int>(broken.code()) << "}" << std::endl;
  return 0;
}
