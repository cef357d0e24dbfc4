"""Draws weight-loss landscapes: how fast the adversarial loss rises as the weights move, and the robust gap.

    python -m pipelines.landscape --workdir=runs/at,runs/at_awp
    python -m pipelines.landscape --workdir=runs/at_awp --network=epochs
    python -m pipelines.landscape --network=model.keras --data=cifar10 --threat=linf:8/255

The first shows several runs in one figure; the second one run through its training (trained with
train.keep_every=10, for instance); the third any network. Several are joined by commas. The same command
goes on with an unfinished drawing. --gin_file and --gin_bindings change what a run's own configuration
says: Landscape.attack=@test/PGD(). All GPUs of the machine work side by side.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import absl.flags

from awp_tf import threats
from awp_tf.attacks import PGD
from awp_tf.data.by_name import data_set
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import local
from awp_tf.landscape.draw import View, draw
from awp_tf.landscape.settings import Landscape
from awp_tf.networks.classifier import load

from . import _cli, _devices, _flags, _main

absl.flags.adopt_module_key_flags(_flags)  # so that --help shows them
absl.flags.adopt_module_key_flags(_cli)
absl.flags.adopt_module_key_flags(_devices)
_ALPHAS = absl.flags.DEFINE_string("alphas", None, "from:to:points, for instance -1:1:21; 0 must be among them.")
_DIRECTIONS = absl.flags.DEFINE_integer("directions", None, "How many random directions.")
_PLANE = absl.flags.DEFINE_string("plane", None, "Also a plane through two directions: -1:1:11 for 11 x 11 points.")
_FIXED = absl.flags.DEFINE_bool("fixed_images", None, "Also the loss on images crafted once, at alpha = 0.")
_AWP_LENGTH = absl.flags.DEFINE_float("awp_length", None, "How far along the AWP direction, ||v|| / ||w||; 0: not.")
_SPLIT = absl.flags.DEFINE_enum("split", None, ["train", "test"], "On which images the loss is drawn.")


def run(argv: Sequence[str]) -> None:
    """Reads networks and data, draws, prints the table."""
    devices = _devices.prepare()
    runs, names = _several(_flags.WORKDIR.value), _several(_flags.NETWORK.value)
    views, settings, config = _of_runs(runs, names or ["last"]) if runs else _of_networks(names)
    draw(views, settings, _flags.output(_default_output(runs, names, views)), config=config, devices=devices)


def _of_runs(folders: Sequence[str], names: Sequence[str]) -> tuple[list[View], Landscape, str]:
    """Networks of runs, each with its own images."""
    if _flags.THREAT.value:
        raise UserError("--threat: expected it without --workdir; a run has its own (Landscape.attack).")
    views, found, configs = [], [], []
    paths = [local(folder) for folder in folders]
    groups = _distinct([path.resolve().name for path in paths], paths)
    for folder, group in zip(folders, groups, strict=True):
        run = _flags.run(folder, finished=False)
        settings = _with_flags(_cli.call(Landscape))
        for name, epoch, file in _flags.networks(run.path, names):
            label = _label(group, name, epoch, alone=len(folders) == 1, single=len(names) == 1)
            view = View(label, file, run.train, run.source.test, run.source.name, group, epoch)
            views.append(view.only(settings.examples))
        found.append(settings)
        configs.append(run.config)
    fields = [field.name for field in dataclasses.fields(Landscape)]
    different = [name for name in fields if any(getattr(each, name) != getattr(found[0], name) for each in found)]
    if different:
        values = "; ".join(f"{name}: {', '.join(str(getattr(each, name)) for each in found)}" for name in different)
        raise UserError(
            f"--workdir: expected runs with the same settings of Landscape, received {values}. Give all the same, "
            "by a flag or by --gin_bindings."
        )
    return views, found[0], "\n".join(configs)


def _label(run: str, name: str, epoch: int | None, *, alone: bool, single: bool) -> str:
    """Short where nothing can be mixed up."""
    if alone:
        return name
    return run if single and epoch is None else f"{run} {name}"


def _distinct(names: Sequence[str], paths: Sequence[pathlib.Path]) -> list[str]:
    """The names; with the folder that a path is in where a name is said twice."""
    return [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]


def _of_networks(names: Sequence[str]) -> tuple[list[View], Landscape, str]:
    """Any networks on any data."""
    _flags.require_alone()
    settings = _with_flags(Landscape(attack=PGD(threats.parse(_flags.THREAT.value or "linf:8/255"))))
    views = []
    paths = [local(name) for name in names]
    for path, label in zip(paths, _distinct([path.stem for path in paths], paths), strict=True):
        splits = data_set(_flags.DATA.value, ("train", "test"), load(str(path)).shape).splits
        view = View(label, path, splits["train"], splits["test"], _flags.DATA.value, label)
        views.append(view.only(settings.examples))
    return views, settings, ""


def _with_flags(settings: Landscape) -> Landscape:
    """The settings with what the flags say."""
    return _flags.changed(
        settings,
        alphas=_ALPHAS.value,
        directions=_DIRECTIONS.value,
        plane=_PLANE.value,
        fixed=_FIXED.value,
        awp_length=_AWP_LENGTH.value,
        examples=_flags.EXAMPLES.value,
        split=_SPLIT.value,
        batch_size=_flags.BATCH.value,
        seed=_flags.SEED.value,
    )


def _several(value: str | None) -> list[str]:
    """What is joined by commas, each once."""
    return list(dict.fromkeys(part for part in (value or "").split(",") if part))


def _default_output(runs: Sequence[str], networks: Sequence[str], views: Sequence[View]) -> str:
    """In the run's own folder where there is one run."""
    if len(runs) == 1:
        which = "".join(f"_{pathlib.Path(name).stem}" for name in networks if networks != ["last"])
        return str(local(runs[0]) / f"landscape{which}")
    names = dict.fromkeys(view.group.replace("/", "_") for view in views)
    return f"landscapes/{'+'.join(names)}"


def main() -> None:
    """The command itself."""
    _main.main(run)


if __name__ == "__main__":
    main()
