"""Compares finished runs of pipelines.continual: a Markdown table, a row a recipe.

    python -m tools.continual_table --runs='runs/er-seed*,runs/fs_dgpm-seed*' --against=er --output=comparison

A recipe is the name of a run's folder without -seedN. ACC, BWT (over the T - 1 earlier tasks) and LA (accuracy right
after learning) are in points, with the standard error over seeds. --against adds differences between runs of the same
seed, --output figures.
"""

import pathlib
from collections.abc import Sequence

import absl.flags

from awp_tf.infra.errors import UserError, one_of
from awp_tf.infra.files import local, write_bytes
from pipelines import _main
from tools import continual_runs

_RUNS = absl.flags.DEFINE_list("runs", None, "Folders of runs, by commas; * and ? match names.", required=True)
_AGAINST = absl.flags.DEFINE_string("against", None, "A recipe from which the others differ by so much.")
_OUTPUT = absl.flags.DEFINE_string("output", None, "A folder for figures.")


def run(argv: Sequence[str]) -> None:
    """Reads, prints, draws."""
    groups = continual_runs.read_runs(_RUNS.value)
    if _AGAINST.value is not None:
        one_of("--against", _AGAINST.value, list(groups))
    folder = None if _OUTPUT.value is None else local(_OUTPUT.value)
    if folder and folder.exists() and not folder.is_dir():
        raise UserError(f"--output: expected a folder, received the file {folder}; choose another name.")
    print(f"Mean ± standard error over seeds; ACC, BWT and LA in points:\n\n{continual_runs.means(groups)}")
    if _AGAINST.value is not None:
        print(f"\nDifferences, seed by seed:\n\n{continual_runs.differences(groups, _AGAINST.value)}")
    if folder:
        _draw(folder, groups)


def _draw(folder: pathlib.Path, groups: continual_runs.Groups) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in continual_runs.draw_figures(groups).items():
        write_bytes(folder / name, content)
    print(f"\nfigures: {folder}")


if __name__ == "__main__":
    _main.main(run)
