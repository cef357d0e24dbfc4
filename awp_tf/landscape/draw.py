"""Draws the weight-loss landscapes of networks from end to end: survey, numbers, figures, files."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from awp_tf.data import Split
from awp_tf.data.batches import ordered, spread
from awp_tf.evaluation.passes import Passes
from awp_tf.evaluation.protocol import Subject
from awp_tf.functional import require_logits
from awp_tf.infra import provenance
from awp_tf.infra.devices import Devices
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_arrays, write_bytes, write_text
from awp_tf.infra.progress import duration
from awp_tf.infra.result_folder import Content, ResultFolder
from awp_tf.infra.signals import Interrupt
from awp_tf.infra.tensorboard import Board, not_fatal
from awp_tf.landscape.figures import draw_figures
from awp_tf.landscape.result import Result, summary, text
from awp_tf.landscape.settings import Landscape
from awp_tf.landscape.survey import Meter, Survey
from awp_tf.networks.classifier import digest, keras_file, of_keras
from awp_tf.networks.heads import unfreeze


@dataclasses.dataclass(frozen=True)
class View:
    """A network and the images on which its loss is looked at.

    Attributes:
        name: In figures and tables.
        path: A .keras file; it is not changed.
        train: Training images, not augmented.
        test: Test images.
        data: Name of the data, for messages.
        group: The run it belongs to.
        epoch: After which it was saved; None where that does not matter.
    """

    name: str
    path: pathlib.Path
    train: Split
    test: Split
    data: str = "data"
    group: str = ""
    epoch: int | None = None

    def only(self, examples: int | None) -> Self:
        """The same with at most so many images of each split, evenly spread; the others need not stay in memory."""
        train, test = (spread(split, examples) for split in (self.train, self.test))
        return dataclasses.replace(self, train=train, test=test)

    def network(self) -> keras.Model:
        """Reads the network.

        Raises:
            UserError: It cannot be read, does not fit the images, or gives no logits.
        """
        network = keras_file(self.path)
        unfreeze(network)  # a network that was frozen before it was saved, wholly or in part, has a landscape, too
        Subject(of_keras(network, name=str(self.path)), {"train": self.train, "test": self.test}, data=self.data)
        require_logits(network, str(self.path))
        if not any(len(weight.shape) > 1 for weight in network.trainable_variables):
            raise UserError(f"{self.path}: expected a network with trainable kernels, which this has not.")
        return network

    @functools.cached_property
    def content(self) -> tuple[str, ...]:
        """What its landscape depends on: the best network may also be the last, or one of an epoch."""
        return digest(self.path), self.train.digest(), self.test.digest()


def draw(
    views: Sequence[View], settings: Landscape, folder: str, *, config: str = "", devices: Devices = Devices()
) -> Content:
    """Draws the landscapes, or goes on with an unfinished drawing.

    Args:
        views: One or more networks, to be shown in one figure.
        settings: How.
        folder: Where landscape.npz, .json, .md and figures go; new, empty, or of this drawing.
        config: The resolved configuration, to be kept with the arrays.
        devices: Where; each visits points of its own, and the numbers are the same on any of them.

    Returns:
        What landscape.json holds.

    Raises:
        UserError: A network does not fit its images, or the folder is another's; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    views = [view.only(settings.examples) for view in views]
    fingerprint = _fingerprint(views, settings)
    path = pathlib.Path(folder)
    place = ResultFolder(path, "landscape.json", "a landscape", fingerprint, ("network", "data", "settings"))
    finished = place.finished()
    if finished is not None:
        place.clear()
        print(f"{path} holds this landscape, finished; nothing to do.\n\n{finished['text']}")
        return finished
    for view in views:
        view.network()  # all are read once before anything is written
    different = {view.content: view for view in views}.values()
    sizes = [(len(own), len(other)) for own, other in (_own_and_other(view, settings) for view in different)]
    with place.open(), Interrupt() as interrupt:
        meter = Meter(sizes, settings, interrupt.check, devices.threads)
        results = _results(views, settings, place.state, meter, devices)
        content = {
            "text": text(results),
            "networks": summary(results),
            "settings": repr(settings),
            "images": {"train": len(views[0].train), "test": len(views[0].test)},
            "seconds": meter.seconds(),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "fingerprint": fingerprint,
        }
        _write(path, results, content, config)
        place.finish(content)
    print(f"\n{content['text']}\n\nwritten to {path}: landscape.png, .svg, .md, .json, .npz, tensorboard/")
    return content


def _results(
    views: Sequence[View], settings: Landscape, state: pathlib.Path, meter: Meter, devices: Devices
) -> list[Result]:
    """One for each view; what several of them hold is surveyed once."""
    found: dict[tuple[str, ...], Result] = {}
    for number, view in enumerate(views, start=1):
        if view.content not in found:
            found[view.content] = _result(view, settings, state / f"{number}.npz", meter, devices)
    return [
        dataclasses.replace(found[view.content], name=view.name, group=view.group, epoch=view.epoch) for view in views
    ]


def _result(view: View, settings: Landscape, file: pathlib.Path, meter: Meter, devices: Devices) -> Result:
    network = view.network()
    dtype = network.inputs[0].dtype
    own, other = (list(ordered(split, settings.batch_size, dtype)) for split in _own_and_other(view, settings))
    passes = Passes(network, settings.attack, seed=settings.seed)
    survey = Survey(passes, own, other, settings, file, meter.advance, devices.threads, devices)
    meter.begin(passes, own[0])
    meter.skip(survey.done())
    result = Result(view.name, view.group, view.epoch, survey.run(), settings)
    print(f"{view.name}: robust gap {100 * result.gap:.2f} points, {_sharpness(result)}", flush=True)
    return result


def _sharpness(result: Result) -> str:
    return ", ".join(f"g({size:g}) - g(0) = {mean:.3f}" for size, (mean, _) in result.sharpness().items())


def _own_and_other(view: View, settings: Landscape) -> tuple[Split, Split]:
    """The images on which the loss is drawn, and those for the gap."""
    return (view.train, view.test) if settings.split == "train" else (view.test, view.train)


def _fingerprint(views: Sequence[View], settings: Landscape) -> dict[str, str]:
    names = [view.name for view in views]
    if len(set(names)) < len(names):
        raise UserError(f"expected each network once, received {', '.join(names)}.")
    for view in views:
        if not view.path.is_file():
            raise UserError(f"{view.path}: expected a .keras file, but there is none.")
    return {
        "network": ", ".join(f"{view.name} {view.content[0]}" for view in views),
        "data": ", ".join(" ".join(view.content[1:]) for view in views),
        "settings": repr(settings),
        "software": f"{provenance.versions()}, commit {provenance.commit()}",
    }


def _write(path: pathlib.Path, results: Sequence[Result], content: Content, config: str) -> None:
    """Everything but landscape.json, which says that the rest is there."""
    arrays = {
        "config": np.array(config),
        **{key: np.array(content["fingerprint"][key]) for key in content["fingerprint"]},
    }
    for result in results:
        for curve in result.settings.curves:
            arrays[f"{result.name}/{curve.name}/alpha"] = curve.coefficients
            arrays[f"{result.name}/{curve.name}/loss"] = result.heights[curve.name][:, 0]
            arrays[f"{result.name}/{curve.name}/accuracy"] = result.heights[curve.name][:, 1]
        for part, accuracy in result.robust().items():
            arrays[f"{result.name}/robust_{part}"] = np.array(accuracy)
    write_arrays(path / "landscape.npz", arrays)
    files: dict[str, bytes] = {}
    with not_fatal("the figures of the landscape"):
        files = draw_figures(results)
        board = Board(path / "tensorboard")
        for name, picture in files.items():
            write_bytes(path / name, picture)
            if name.endswith(".png"):
                board.picture(f"landscape/{name.removesuffix('.png')}", tf.io.decode_png(picture, channels=3))
        board.text("landscape/summary", content["text"])
    page = [
        "# Weight-loss landscape",
        content["text"],
        f"Settings: `{content['settings']}`, {json.dumps(content['images'])} images; "
        f"{duration(content['seconds'])}; commit {content['commit'] or 'unknown'}.",
        *(f"![{name}]({name})" for name in files if name.endswith(".png")),
    ]
    write_text(path / "landscape.md", "\n\n".join(page) + "\n")
