"""Flags of the commands that look at a network: evaluate, landscape."""

import pathlib

import absl.flags

from awp_tf.checks import UserError
from pipelines import _cli

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
WORKDIR = absl.flags.DEFINE_string("workdir", None, "A run's folder.")
OUTPUT = absl.flags.DEFINE_string("output", None, "Where the results go; by default a folder inside the run's.")
NETWORK = absl.flags.DEFINE_string("network", None, "A .keras file (evaluate also takes the folder of a SavedModel).")
DATA = absl.flags.DEFINE_string(
    "data",
    None,
    "With --network: digits, an .npz file (x_test, y_test, x_train, y_train), a folder of class folders, a TFDS name.",
)
THREAT = absl.flags.DEFINE_string("threat", None, "linf:8/255 or l2:128/255, in units of [0, 1] pixels.")
EXAMPLES = absl.flags.DEFINE_integer("max_examples", None, "At most so many images of a split, spread evenly.")
BATCH = absl.flags.DEFINE_integer("batch_size", None, "Images at a time.")
SEED = absl.flags.DEFINE_integer("seed", None, "What all noise depends on.")


def finished_run(folder: str) -> pathlib.Path:
    """The folder of a finished run.

    Raises:
        UserError: It is not.
    """
    path = pathlib.Path(folder)
    if not (path / "result.json").is_file():
        raise UserError(f"--workdir: expected the folder of a finished run (with result.json), received {folder!r}.")
    return path
