# docker build -f docs/deploy/train.Dockerfile -t registry.example/awp_tf .
# CUDA, cuDNN and NCCL come with TensorFlow's wheels; the machine has the driver.
FROM python:3.11-slim
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir '.[and-cuda]'
ENTRYPOINT ["awp-train"]
CMD ["--help"]
