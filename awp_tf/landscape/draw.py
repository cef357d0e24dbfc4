"""Draws the weight-loss landscapes of networks from end to end: survey, numbers, figures, files."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from awp_tf import provenance
from awp_tf.board import Board
from awp_tf.checks import UserError
from awp_tf.console import Heartbeat, duration
from awp_tf.data import Split
from awp_tf.data.pipeline import ordered
from awp_tf.data.sources import spread
from awp_tf.files import write_arrays, write_bytes, write_text
from awp_tf.interrupt import Interrupt
from awp_tf.landscape.figures import drawn
from awp_tf.landscape.passes import Passes
from awp_tf.landscape.result import Result, summary, text
from awp_tf.landscape.settings import Landscape
from awp_tf.landscape.survey import Survey, cost, passes_at
from awp_tf.output_folder import OutputFolder
from awp_tf.robustness.classifier import digest, keras_file, of_keras
from awp_tf.robustness.protocol import cpu_workers
from awp_tf.robustness.subject import Subject

Content = dict[str, Any]


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

    def network(self) -> keras.Model:
        """Reads the network.

        Raises:
            UserError: It cannot be read, or does not fit the images.
        """
        network = keras_file(self.path)
        Subject(of_keras(network, name=str(self.path)), {"train": self.train, "test": self.test}, data=self.data)
        return network


def draw(views: Sequence[View], settings: Landscape, folder: str, *, config: str = "") -> Content:
    """Draws the landscapes, or goes on with an unfinished drawing.

    Args:
        views: One or more networks, to be shown in one figure.
        settings: How.
        folder: Where landscape.npz, .json, .md and figures go; new, empty, or of this drawing.
        config: The resolved configuration, to be kept with the arrays.

    Returns:
        What landscape.json holds.

    Raises:
        UserError: A network does not fit its images, or the folder is another's; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    views = [_subset(view, settings) for view in views]
    fingerprint = _fingerprint(views, settings)
    path = pathlib.Path(folder)
    place = OutputFolder(path, "landscape.json", "a landscape", fingerprint, ("network", "data", "settings"))
    finished = place.finished()
    if finished is not None:
        place.clear()
        print(f"{path} holds this landscape, finished; nothing to do.\n\n{finished['text']}")
        return finished
    for view in views:
        view.network()  # all are read once before anything is written
    with place.opened(), Interrupt() as interrupt:
        meter = _Meter(views, settings, interrupt.check)
        results = [
            _result(view, settings, place.state / f"{number}.npz", meter) for number, view in enumerate(views, start=1)
        ]
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


class _Meter:
    """Says what the work will cost, then how far it is; in passes of a batch forward and back."""

    def __init__(self, views: Sequence[View], settings: Landscape, check: Callable[[], None]) -> None:
        self._check = check
        self._start = time.perf_counter()
        sizes = [[-(-len(split) // settings.batch_size) for split in _own_and_other(view, settings)] for view in views]
        self._total = sum(cost(settings, own, other) for own, other in sizes)
        self._at_start = passes_at(settings)
        self._heartbeat: Heartbeat | None = None
        points = sum(len(curve.coefficients) for curve in settings.curves)
        images = len(_own_and_other(views[0], settings)[0])
        print(
            f"{len(views)} networks x {points} points x {images:,} images, {settings.attack}: about "
            f"{self._total * min(settings.batch_size, images):,} passes of an image forward and back",
            flush=True,
        )

    def begin(self, passes: Passes, batch: tuple[tf.Tensor, tf.Tensor]) -> None:
        """Measures a batch of the first network, and says how long all will take."""
        if self._heartbeat is not None:
            return
        passes.height(passes.weights, [batch])  # traces
        start = time.perf_counter()
        passes.height(passes.weights, [batch])
        seconds = (time.perf_counter() - start) / self._at_start * self._total / cpu_workers()
        print(f"about {duration(seconds)} in all", flush=True)
        self._heartbeat = Heartbeat("landscape", self._total)

    def advance(self, passes: int) -> None:
        """So many are made."""
        if self._heartbeat is not None:
            self._heartbeat.advance(passes)
        self._check()

    def skip(self, passes: int) -> None:
        """So many had been made before."""
        if self._heartbeat is not None:
            self._heartbeat.skip(passes)

    def seconds(self) -> float:
        """Since the start."""
        return round(time.perf_counter() - self._start, 1)


def _result(view: View, settings: Landscape, file: pathlib.Path, meter: _Meter) -> Result:
    network = view.network()
    dtype = network.inputs[0].dtype
    own, other = (list(ordered(split, settings.batch_size, dtype)) for split in _own_and_other(view, settings))
    passes = Passes(network, settings.attack, seed=settings.seed)
    survey = Survey(passes, own, other, settings, file, meter.advance, cpu_workers())
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


def _subset(view: View, settings: Landscape) -> View:
    train, test = (spread(split, settings.examples) for split in (view.train, view.test))
    return dataclasses.replace(view, train=train, test=test)


def _fingerprint(views: Sequence[View], settings: Landscape) -> dict[str, str]:
    names = [view.name for view in views]
    if len(set(names)) < len(names):
        raise UserError(f"expected each network once, received {', '.join(names)}.")
    for view in views:
        if not view.path.is_file():
            raise UserError(f"{view.path}: expected a .keras file, but there is none.")
    return {
        "network": ", ".join(f"{view.name} {digest(view.path)}" for view in views),
        "data": ", ".join(f"{view.train.digest()} {view.test.digest()}" for view in views),
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
    files = drawn(results)
    board = Board(path / "tensorboard")
    for name, picture in files.items():
        write_bytes(path / name, picture)
        if name.endswith(".png"):
            board.picture(f"landscape/{name.removesuffix('.png')}", tf.io.decode_png(picture, channels=3))
    page = [
        "# Weight-loss landscape",
        content["text"],
        f"Settings: `{content['settings']}`, {json.dumps(content['images'])} images; "
        f"{duration(content['seconds'])}; commit {content['commit'] or 'unknown'}.",
        *(f"![{name}]({name})" for name in files if name.endswith(".png")),
    ]
    write_text(path / "landscape.md", "\n\n".join(page) + "\n")
    board.text("landscape/summary", content["text"])
