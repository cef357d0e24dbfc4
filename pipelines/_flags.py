"""Flags of the commands that look at networks (evaluate, landscape, export), and what they mean together.

--workdir is always the folder of a run; --network one of its networks (best, last, epoch-0010) or a file; without
--workdir, --network is a file and --data says on which images.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import TypeVar

import absl.flags

from awp_tf.data import Data, Source, Split
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import local
from awp_tf.infra.run_folder import epoch_file, kept_epochs, read_run, require_same_data

from . import _cli

T = TypeVar("T")

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
WORKDIR = absl.flags.DEFINE_string("workdir", None, "A run's folder.")
OUTPUT = absl.flags.DEFINE_string(
    "output",
    None,
    "Where the results go; by default into the run's folder, or evaluations/, landscapes/, serving/ (all exports).",
)
NETWORK = absl.flags.DEFINE_string(
    "network",
    None,
    "With --workdir: which of its networks (best, last, epoch-0010), or a .keras file. Without: a file, and --data.",
)
DATA = absl.flags.DEFINE_string(
    "data",
    None,
    "With --network: digits, an .npz file (x_test, y_test, x_train, y_train), a folder with x_test.npy, a folder of "
    "class folders, a TFDS name.",
)
THREAT = absl.flags.DEFINE_string("threat", None, "linf:8/255 or l2:128/255, in units of [0, 1] pixels.")
EXAMPLES = absl.flags.DEFINE_integer("max_examples", None, "At most so many images of a split, spread evenly.")
BATCH = absl.flags.DEFINE_integer("batch_size", None, "Images at a time.")
SEED = absl.flags.DEFINE_integer("seed", None, "What all noise depends on.")


@dataclasses.dataclass(frozen=True)
class RunData:
    """A run of pipelines.train, read; gin is configured as the run was.

    Attributes:
        path: Its folder.
        config: Its configuration, with what --gin_file and --gin_bindings change.
        source: Its data; they are the same as when training began.
        train: Its training images.
    """

    path: pathlib.Path
    config: str
    source: Source
    train: Split


def run(folder: str, *, finished: bool = True) -> RunData:
    """Reads a run.

    Args:
        folder: Its folder.
        finished: Whether it has to be finished.

    Raises:
        UserError: It is none, it is not finished, its data have changed, or --data was given as well.
    """
    if DATA.value:
        raise UserError("--data: expected it without --workdir; a run has its own data, and results go to --output.")
    path = local(folder)
    try:
        read_run(path, finished=finished)
    except UserError as error:
        raise UserError(f"--workdir: {error}") from error
    flags = absl.flags.FLAGS
    config = _cli.parse_run(path, flags.gin_file, flags.gin_bindings)
    source, train, _ = _cli.call(Data).load()
    require_same_data(path, source.identity)
    return RunData(path, config, source, train)


def refuse(why: str, *names: str) -> None:
    """Raises UserError where one of these flags was given, which would change nothing.

    Args:
        why: "plays no part in an export".
        names: Of the flags.
    """
    for name in names:
        if absl.flags.FLAGS[name].present:
            raise UserError(f"--{name}: {why}.")


def default_network(path: pathlib.Path) -> str:
    """The name of a run's network where nobody names one: "best", or "last" where the run keeps no best one."""
    return "best" if (path / "best.keras").exists() else "last"


def networks(path: pathlib.Path, names: Sequence[str]) -> list[tuple[str, int | None, pathlib.Path]]:
    """(Name, epoch or None, file) of each network of a run, or of a file.

    Args:
        path: Of the run.
        names: "best", "last", "epoch-0010", "epochs" (all that were kept), or a .keras file.

    Raises:
        UserError: There is no such network (yet).
    """
    result: list[tuple[str, int | None, pathlib.Path]] = []
    kept = kept_epochs(path)
    for name in names:
        number = re.fullmatch(r"epoch-?(\d+)", name)
        if name == "epochs":
            result += [(f"epoch {epoch}", epoch, file) for epoch, file in kept.items()]
        elif number:
            result.append((f"epoch {int(number[1])}", int(number[1]), epoch_file(path, int(number[1]))))
        elif name in ("best", "last"):
            result.append((name, None, path / f"{name}.keras"))
        else:
            result.append(_of_file(path, local(name)))
    missing = [str(file) for _, _, file in result if not file.exists()]
    if missing or not result:
        raise UserError(
            f"--network: expected best, last, epoch-0010 or epochs of {path} (train.keep_every), or a file; "
            f"there is no {', '.join(missing) or 'kept epoch'}."
        )
    return result


def one_network(path: pathlib.Path, purpose: str) -> tuple[str, pathlib.Path]:
    """(Name, file) of the network of a run that --network says, or its default one; UserError where it says several."""
    (name, _, file), *others = networks(path, [NETWORK.value or default_network(path)])
    if others:
        raise UserError(f"--network: expected one network to {purpose}, received epochs.")
    return name, file


def changed(settings: T, **given: object) -> T:
    """Settings, a dataclass, with those that were given: a flag that was not is None."""
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(settings, **given)  # type: ignore[type-var]


def _of_file(path: pathlib.Path, file: pathlib.Path) -> tuple[str, int | None, pathlib.Path]:
    """Named after its folder too, unless it is one of the run's: another best.keras is not that of the run."""
    own = file.resolve().parent == path.resolve() and file.stem in ("best", "last")
    return (file.stem if own else f"{file.resolve().parent.name}/{file.stem}", None, file)


def output(default: pathlib.Path | str) -> str:
    """Where the results go: --output, or else default."""
    return str(local(OUTPUT.value) if OUTPUT.value else default)


def evaluation_folder(path: pathlib.Path, name: str) -> pathlib.Path:
    """Where the evaluation of a run's network goes by default."""
    return path / ("evaluation" if name == "best" else f"evaluation_{plain(name)}")


def plain(name: str) -> str:
    """A name as part of a file's, or as a server and a shell take it."""
    return re.sub(r"[^\w.-]+", "_", name)


def require_alone() -> None:
    """Raises UserError unless --network and --data were given, nothing that only goes with a run; loads --import."""
    if not NETWORK.value or not DATA.value:
        raise UserError(
            "expected --workdir (a run's folder), or --network=model.keras with --data (cifar10, digits, mine.npz)."
        )
    if absl.flags.FLAGS.gin_file or absl.flags.FLAGS.gin_bindings:
        raise UserError("--gin_file, --gin_bindings: expected them with --workdir only.")
    _cli.own_parts()  # layers of a person's own, without which a file of theirs cannot be read
