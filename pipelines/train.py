"""Trains a robust classifier.

    python -m pipelines.train --gin_file=gin/trades_awp.gin

The same command goes on with an unfinished run. --gin_file and --gin_bindings may be repeated.
"""

from collections.abc import Sequence

import absl.flags

from awp_tf.infra.files import local
from awp_tf.training.train import train

from . import _cli, _main

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
_WORKDIR = absl.flags.DEFINE_string("workdir", None, "The run's folder; by default runs/<names of the gin files>.")


def run(argv: Sequence[str]) -> None:
    """Parses the configuration and trains."""
    flags = absl.flags.FLAGS
    if not flags.gin_file:
        raise _cli.UserError("--gin_file: expected a recipe, received none; try --gin_file=gin/trades_awp.gin.")
    workdir = local(_WORKDIR.value or _cli.default_workdir(flags.gin_file))
    config = _cli.parse(flags.gin_file, flags.gin_bindings)
    _cli.call(train, workdir=str(workdir), config=config, parts=_cli.own_parts())


def main() -> None:
    """The command itself."""
    _main.main(run)


if __name__ == "__main__":
    main()
