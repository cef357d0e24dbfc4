"""Draws weight-loss landscapes: how fast the adversarial loss rises as the weights move, and the robust gap.

    python -m pipelines.landscape --workdir=runs/at,runs/at_awp
    python -m pipelines.landscape --workdir=runs/at_awp --checkpoints=epochs
    python -m pipelines.landscape --network=model.keras --data=cifar10 --threat=linf:8/255

The first shows several runs in one figure; the second one run through its training (trained with
train.keep_every=10, for instance); the third any network. Several are joined by commas. The same command
goes on with an unfinished drawing. --gin_file and --gin_bindings change what a run's own configuration
says: Landscape.attack=@test/PGD().
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import absl.flags
import tensorflow as tf

from awp_tf import cpu, robustness, threats
from awp_tf.attacks import PGD
from awp_tf.checks import UserError
from awp_tf.data.named import named
from awp_tf.landscape import Landscape, View, draw
from awp_tf.run_folder import kept_epochs
from pipelines import _cli, _flags

absl.flags.adopt_module_key_flags(_flags)  # so that --help shows them
absl.flags.adopt_module_key_flags(_cli)
_CHECKPOINTS = absl.flags.DEFINE_list(
    "checkpoints", ["last"], "Which networks of a run: best, last, epochs (all that train.keep_every kept); by commas."
)
_ALPHAS = absl.flags.DEFINE_string("alphas", None, "from:to:points, for instance -1:1:21; 0 must be among them.")
_DIRECTIONS = absl.flags.DEFINE_integer("directions", None, "How many random directions.")
_PLANE = absl.flags.DEFINE_string("plane", None, "Also a plane through two directions: -1:1:11 for 11 x 11 points.")
_FIXED = absl.flags.DEFINE_bool("fixed_images", None, "Also the loss on images crafted once, at alpha = 0.")
_AWP_LENGTH = absl.flags.DEFINE_float("awp_length", None, "How far along the AWP direction, ||v|| / ||w||; 0: not.")
_SPLIT = absl.flags.DEFINE_enum("split", None, ["train", "test"], "On which images the loss is drawn.")


def run(argv: Sequence[str]) -> None:
    """Reads networks and data, draws, prints the table."""
    cpu.prepare()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU would round to 10 bits
    runs, networks = _several(_flags.WORKDIR.value), _several(_flags.NETWORK.value)
    if bool(runs) == bool(networks):
        raise UserError("expected either --workdir (of a run) or --network and --data; see --help.")
    views, settings, config = _of_runs(runs) if runs else _of_networks(networks)
    draw(views, settings, _flags.OUTPUT.value or _default_output(runs, views), config=config)


def _of_runs(folders: Sequence[str]) -> tuple[list[View], Landscape, str]:
    """Networks of runs, each with its own images."""
    flags = absl.flags.FLAGS
    if _flags.DATA.value or _flags.THREAT.value:
        raise UserError("--data, --threat: expected them with --network only; a run has its own.")
    views, found, configs = [], [], []
    for folder in folders:
        path = pathlib.Path(folder)
        if not (path / "config.gin").is_file():
            raise UserError(f"--workdir: expected the folder of a run (with config.gin), received {folder!r}.")
        config = _cli.parse([str(path / "config.gin"), *flags.gin_file], flags.gin_bindings)
        data = _cli.call(_cli.experiment.Data)
        settings = _changed(_cli.call(Landscape))
        files = _checkpoints(path)
        source, train, _ = data.load()
        views += [
            View(
                _label(path, kind, epoch, alone=len(folders) == 1),
                file,
                train,
                source.test,
                source.name,
                path.name,
                epoch,
            )
            for kind, epoch, file in files
        ]
        found.append(settings)
        configs.append(config)
    names = [field.name for field in dataclasses.fields(Landscape)]
    different = [name for name in names if any(getattr(one, name) != getattr(found[0], name) for one in found)]
    if different:
        values = "; ".join(f"{name}: {', '.join(str(getattr(one, name)) for one in found)}" for name in different)
        raise UserError(
            f"--workdir: expected runs with the same settings of Landscape, received {values}. Give all the same, "
            "by a flag or by --gin_bindings."
        )
    return views, found[0], "\n".join(configs)


def _checkpoints(path: pathlib.Path) -> list[tuple[str, int | None, pathlib.Path]]:
    """(best, last or epoch; which epoch; file)."""
    result: list[tuple[str, int | None, pathlib.Path]] = []
    for kind in _CHECKPOINTS.value:
        if kind == "epochs":
            kept = kept_epochs(path)
            if not kept:
                raise UserError(
                    f"--checkpoints: expected {path} to have kept networks of its epochs, but it has none; "
                    "train with --gin_bindings=train.keep_every=10."
                )
            result += [(kind, epoch, file) for epoch, file in kept.items()]
        elif kind in ("best", "last"):
            if not (path / f"{kind}.keras").is_file():
                raise UserError(f"--workdir: expected {path} to hold {kind}.keras, but it does not (yet).")
            result.append((kind, None, path / f"{kind}.keras"))
        else:
            raise UserError(f"--checkpoints: expected best, last or epochs, received {kind!r}.")
    return result


def _label(path: pathlib.Path, kind: str, epoch: int | None, *, alone: bool) -> str:
    """Short where nothing can be mixed up."""
    which = f"epoch {epoch}" if epoch is not None else kind
    if alone:
        return which
    return path.name if len(_CHECKPOINTS.value) == 1 and epoch is None else f"{path.name} {which}"


def _of_networks(names: Sequence[str]) -> tuple[list[View], Landscape, str]:
    """Any networks on any data."""
    if not _flags.DATA.value:
        raise UserError("--data: expected what to look at, for instance cifar10, digits or mine.npz.")
    if absl.flags.FLAGS.gin_file or absl.flags.FLAGS.gin_bindings:
        raise UserError("--gin_file, --gin_bindings: expected them with --workdir only.")
    settings = _changed(Landscape(attack=PGD(threats.parse(_flags.THREAT.value or "linf:8/255"))))
    views = []
    stems = [pathlib.Path(name).stem for name in names]
    for name in names:
        path = pathlib.Path(name)
        label = path.stem if stems.count(path.stem) == 1 else f"{path.resolve().parent.name}/{path.stem}"
        splits = named(_flags.DATA.value, ("train", "test"), robustness.load(name).shape).splits
        views.append(View(label, path, splits["train"], splits["test"], _flags.DATA.value, label))
    return views, settings, ""


def _changed(settings: Landscape) -> Landscape:
    """The settings with what the flags say."""
    given = {
        "alphas": _ALPHAS.value,
        "directions": _DIRECTIONS.value,
        "plane": _PLANE.value,
        "fixed": _FIXED.value,
        "awp_length": _AWP_LENGTH.value,
        "examples": _flags.EXAMPLES.value,
        "split": _SPLIT.value,
        "batch_size": _flags.BATCH.value,
        "seed": _flags.SEED.value,
    }
    return dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})


def _several(value: str | None) -> list[str]:
    """What is joined by commas, each once."""
    return list(dict.fromkeys(part for part in (value or "").split(",") if part))


def _default_output(runs: Sequence[str], views: Sequence[View]) -> str:
    """In the run's own folder where there is one run."""
    if len(runs) == 1:
        which = "" if _CHECKPOINTS.value == ["last"] else f"_{'+'.join(_CHECKPOINTS.value)}"
        return str(pathlib.Path(runs[0]) / f"landscape{which}")
    names = dict.fromkeys(view.group.replace("/", "_") for view in views)
    return f"landscapes/{'+'.join(names)}"


if __name__ == "__main__":
    _cli.main(run)
