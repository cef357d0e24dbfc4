"""Trains a robust classifier.

    python -m pipelines.train --gin_file=gin/trades_awp.gin

    python -m pipelines.train --gin_file=gin/trades_awp.gin --network_file=model.keras

The same command goes on with an unfinished run. --gin_file and --gin_bindings may be repeated.
"""

import re
from collections.abc import Sequence

import absl.flags

from awp_tf.infra.files import local
from awp_tf.training.train import train

from . import _cli, _main

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
_WORKDIR = absl.flags.DEFINE_string("workdir", None, "The run's folder; by default runs/<names of the gin files>.")
_NETWORK_FILE = absl.flags.DEFINE_string(
    "network_file",
    None,
    "Start from the network of this .keras file as it is, its last layer too, in place of a new one of the recipe's; "
    "the same as the settings NETWORK=@from_file and from_file.path.",
)


def run(argv: Sequence[str]) -> None:
    """Parses the configuration and trains."""
    flags = absl.flags.FLAGS
    if not flags.gin_file:
        raise _cli.UserError("--gin_file: expected a recipe, received none; try --gin_file=gin/trades_awp.gin.")
    begin = [] if _NETWORK_FILE.value is None else [_NETWORK_FILE.value]
    workdir = local(_WORKDIR.value or _cli.default_workdir([*flags.gin_file, *begin]))
    config = _cli.parse(flags.gin_file, [*flags.gin_bindings, *_from_file(begin, flags.gin_bindings)])
    _cli.call(train, workdir=str(workdir), config=config, parts=_cli.own_parts())


def _from_file(files: Sequence[str], bindings: Sequence[str]) -> list[str]:
    """--network_file as settings, so that the run's config.gin has it."""
    other = next((binding for binding in bindings if re.match(r"\s*NETWORK\s*=", binding)), None)
    if files and other:
        raise _cli.UserError(f"--network_file: expected it without --gin_bindings={other}; both name a network.")
    return [setting for file in files for setting in ("NETWORK = @from_file", f"from_file.path = {file!r}")]


def main() -> None:
    """The command itself."""
    _main.main(run)


if __name__ == "__main__":
    main()
