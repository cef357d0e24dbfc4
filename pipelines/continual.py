"""Learns one task after another: experience replay, gradient bases, flat minima (FS-DGPM).

    python -m pipelines.continual --gin_file=gin/fs_dgpm.gin
    python -m pipelines.continual --gin_file=gin/fs_dgpm.gin --gin_file=gin/tasks/split_cifar10.gin
    python -m pipelines.continual --gin_file=gin/fs_dgpm.gin --gin_file=gin/methods/at.gin

The first learns permuted digits, in seconds; the third does so adversarially. The same command goes on with an
unfinished run. Recipes: sgd, er, fs_er, gpm, la_gpm, fs_gpm, dgpm, la_dgpm, fs_dgpm; tasks: gin/tasks/.
"""

from collections.abc import Sequence

import absl.flags

from awp_tf.continual.learn import learn
from awp_tf.continual.settings import Continual
from awp_tf.infra.devices import use_gpus
from awp_tf.infra.files import local

from . import _cli, _main

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
_WORKDIR = absl.flags.DEFINE_string("workdir", None, "The run's folder; by default runs/<names of the gin files>.")


def run(argv: Sequence[str]) -> None:
    """Parses the configuration and learns."""
    use_gpus(1)
    flags = absl.flags.FLAGS
    if not flags.gin_file:
        raise _cli.UserError("--gin_file: expected a recipe, received none; try --gin_file=gin/fs_dgpm.gin.")
    workdir = local(_WORKDIR.value or _cli.default_workdir(flags.gin_file))
    config = _cli.parse(flags.gin_file, flags.gin_bindings, root="Continual.learner")
    learn(_cli.call(Continual), str(workdir), config, _cli.own_parts())


def main() -> None:
    """The command itself."""
    _main.main(run)


if __name__ == "__main__":
    main()
