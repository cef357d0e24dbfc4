"""Sends image files to a TF Serving server and prints what it sees in them.

    python -m tools.serving_client --server=localhost:8500 --model=mine photo.jpg other.png
    python -m tools.serving_client --server=localhost:8501 --protocol=rest --model=mine photo.jpg
    python -m tools.serving_client --model=mine --signature=task_1 photo.png

Any server of an exported folder, at its gRPC or REST port. A server that is just starting is asked again until the
deadline. A task's signature takes pixels: images have to be of the network's size.
"""

import pathlib
import sys
from collections.abc import Sequence

import absl.app
import absl.flags

from awp_tf.export.client import SERVERS, TRANSPORTS, ask
from awp_tf.export.signatures import BYTES
from awp_tf.infra.errors import UserError

_SERVER = absl.flags.DEFINE_string("server", None, "Host and port; by default localhost:8500, for rest localhost:8501.")
_PROTOCOL = absl.flags.DEFINE_enum("protocol", "grpc", list(TRANSPORTS), "What the port speaks.")
_MODEL = absl.flags.DEFINE_string("model", None, "The name it is served under.", required=True)
_VERSION = absl.flags.DEFINE_integer("version", None, "Of the model; by default the server's newest.")
_SIGNATURE = absl.flags.DEFINE_string("signature", BYTES, "What is asked; for instance task_1, for one task only.")
_DEADLINE = absl.flags.DEFINE_float("deadline", 10.0, "Seconds for everything, retries included.")


def run(argv: Sequence[str]) -> None:
    """One line an image."""
    files = [pathlib.Path(name) for name in argv[1:]]
    missing = [str(file) for file in files if not file.is_file()]
    try:
        if not files or missing:
            raise UserError(f"expected image files, received {', '.join(missing) or 'none'}.")
        server = _SERVER.value or SERVERS[_PROTOCOL.value]
        transport = TRANSPORTS[_PROTOCOL.value](server, _MODEL.value, _VERSION.value, _SIGNATURE.value)
        answers = ask(transport, [file.read_bytes() for file in files], deadline=_DEADLINE.value)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for file, answer in zip(files, answers, strict=True):
        name = f" ({answer.class_name})" if answer.class_name else ""
        print(f"{file}: class {answer.class_id}{name}, {100 * answer.probability:.1f} %")


if __name__ == "__main__":
    absl.app.run(run)
