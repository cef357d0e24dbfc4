"""Turns a PyTorch checkpoint of the reference into a .keras network.

    python -m tools.convert_torch --gin_file=gin/at_awp.gin --checkpoint=model_best.pth --output=at_awp.keras

The recipe says which network it is, with which normalisation: AT checkpoints take the recipe's mean
and std, TRADES, MART and RST ones none. Needs the extra "torch"; only tensors are unpickled.
"""

import pathlib
import pickle
from collections.abc import Mapping, Sequence

import absl.flags
import numpy as np

from awp_tf.infra.checkpoints import save_network
from awp_tf.infra.errors import UserError, first_line
from awp_tf.networks import load_torch_weights
from awp_tf.training.recipe import Recipe
from pipelines import _cli, _main

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
_CHECKPOINT = absl.flags.DEFINE_string("checkpoint", None, "The .pt or .pth file.", required=True)
_OUTPUT = absl.flags.DEFINE_string("output", None, "The .keras file to write.", required=True)
_CLASSES = absl.flags.DEFINE_integer("classes", 10, "Classes of the checkpoint.", lower_bound=2)
_SHAPE = absl.flags.DEFINE_list("shape", ["32", "32", "3"], "Height, width, channels.")


def read_checkpoint(path: str) -> Mapping[str, np.ndarray]:
    """The state dict in a file, plain or under "state_dict" or "model", as arrays.

    Raises:
        UserError: torch is missing, or the file is no state dict of tensors.
    """
    try:
        import torch  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UserError("expected PyTorch to read a checkpoint; install it with: pip install -e '.[torch]'.") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"--checkpoint: expected a PyTorch file of tensors, received {path!r} ({first_line(error)})."
        ) from error
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(hasattr(value, "numpy") for value in content.values()):
        raise UserError(f"--checkpoint: expected a state dict, received {type(content).__name__} in {path!r}.")
    return {name: value.numpy() for name, value in content.items()}


def run(argv: Sequence[str]) -> None:
    """Reads, loads, writes."""
    flags = absl.flags.FLAGS
    output = pathlib.Path(_OUTPUT.value)
    if output.suffix != ".keras":
        raise UserError(f"--output: expected a name that ends in .keras, received {_OUTPUT.value!r}.")
    if output.exists():
        raise UserError(f"--output: {output} exists; choose another name or delete it.")
    _cli.parse(flags.gin_file, flags.gin_bindings)
    state = read_checkpoint(_CHECKPOINT.value)
    network = _cli.call(Recipe).network(shape=tuple(map(int, _SHAPE.value)), classes=_CLASSES.value)
    load_torch_weights(network, state)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, output)
    print(f"{network.name} written to {output}")


if __name__ == "__main__":
    _main.main(run)
