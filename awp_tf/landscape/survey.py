"""Visits every point of a network's curves; goes on where it was interrupted."""

import concurrent.futures
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from awp_tf.attacks import PGD
from awp_tf.evaluation.passes import Height, Passes, awp_direction, random_direction, shift
from awp_tf.infra.devices import Devices
from awp_tf.infra.files import read_arrays, write_arrays
from awp_tf.infra.progress import Heartbeat, Pace, duration
from awp_tf.landscape.settings import Curve, Landscape
from awp_tf.noise import WEIGHTS, make_seed
from awp_tf.types import Labelled, Weights

Heights = dict[str, np.ndarray]


@dataclasses.dataclass
class Survey:
    """The landscape around one network.

    Attributes:
        passes: The network.
        own: Images on which the loss is taken.
        other: Images of the other split, for the robust generalisation gap.
        settings: What is visited.
        file: Holds what was found so far.
        on_passes: Called with the number of passes that a batch has made, from several threads; may raise.
        threads: How many points are visited side by side.
        devices: Where, in turn.
    """

    passes: Passes
    own: Sequence[Labelled]
    other: Sequence[Labelled]
    settings: Landscape
    file: pathlib.Path
    on_passes: Callable[[int], None]
    threads: int = 1
    devices: Devices = Devices()

    def run(self) -> Heights:
        """For every curve, and for "start" and "other", an array [points, 2] of loss and accuracy."""
        found = self._found()
        for name, batches in (("start", self.own), ("other", self.other)):
            if name not in found:
                found[name] = np.array([self.passes.height(self.passes.weights, batches, self._count_attack)])
                write_arrays(self.file, found)
        for curve in self.settings.curves:
            heights = found.setdefault(curve.name, np.full([len(curve.coefficients), 2], np.nan))
            # Nothing has moved there, and freshly crafted images are the fixed ones.
            heights[~curve.coefficients.any(axis=1)] = found["start"]
            if np.isnan(heights).any():
                self._visit(curve, heights, lambda: write_arrays(self.file, found))
        return found

    def done(self) -> int:
        """Passes of a batch that an earlier process has made, as counted by cost()."""
        found, own = self._found(), len(self.own)
        curves = [curve for curve in self.settings.curves if curve.name in found]
        points = [~np.isnan(found[curve.name][:, 0]) & curve.coefficients.any(axis=1) for curve in curves]
        made = [
            passes_at(self.settings, curve) * own * int(done.sum()) for curve, done in zip(curves, points, strict=True)
        ]
        first = own * ("start" in found) + len(self.other) * ("other" in found)
        left = [c for c in self.settings.curves if c.name not in found or np.isnan(found[c.name]).any()]
        crafted = own * (_crafted(self.settings.curves) - _crafted(left))
        return sum(made) + (first + crafted) * passes_at(self.settings)

    @functools.cached_property
    def _fixed_images(self) -> Sequence[Labelled]:
        """Crafted once, at the weights themselves, for all curves that keep them."""
        return self.passes.craft(self.own, self._count_attack)

    def _count_attack(self) -> None:
        self.on_passes(passes_at(self.settings))

    def _count_pass(self) -> None:
        self.on_passes(1)

    def _found(self) -> Heights:
        return read_arrays(self.file, "the state of a landscape") or {}

    def _visit(self, curve: Curve, heights: np.ndarray, save: Callable[[], None]) -> None:
        """Fills in what is missing of a curve, several points at a time."""
        directions = [self._direction(name) for name in curve.directions]
        passes, batches, on_batch = self.passes, self.own, self._count_attack
        if curve.fixed:
            passes, on_batch = self.passes.without_attack(), self._count_pass
            batches = self._fixed_images

        def visit(device: int, place: int) -> Height:
            with self.devices.on(device):
                weights = shift(self.passes.weights, directions, curve.coefficients[place])
                return passes.height(weights, batches, on_batch)

        missing = np.flatnonzero(np.isnan(heights).any(axis=1))
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            for first in range(0, len(missing), self.threads):
                places = missing[first : first + self.threads]
                heights[places] = list(pool.map(visit, range(len(places)), places))
                save()

    def _direction(self, name: str) -> Weights:
        if name == "awp":
            return awp_direction(
                self.passes.weights,
                lambda weights: self.passes.gradient(weights, self.own, self._count_attack),
                make_seed(self.settings.seed, WEIGHTS),
            )
        return random_direction(self.passes.weights, make_seed(self.settings.seed, WEIGHTS, int(name.split()[1])))


def passes_at(settings: Landscape, curve: Curve | None = None) -> int:
    """Passes that a batch makes at a point of a curve, or at the weights themselves: the attack's, and one to look."""
    fixed = curve is not None and curve.fixed
    return 1 if fixed else (settings.attack.steps if isinstance(settings.attack, PGD) else 1) + 1


def cost(settings: Landscape, own: int, other: int) -> int:
    """Passes of a batch that a whole survey makes.

    Args:
        settings: What is visited.
        own: Batches of the split on which the loss is taken.
        other: Of the other.
    """
    curves = settings.curves
    points = sum(passes_at(settings, curve) * int(curve.coefficients.any(axis=1).sum()) for curve in curves)
    return own * (points + (1 + _crafted(curves)) * passes_at(settings)) + other * passes_at(settings)


def _crafted(curves: Sequence[Curve]) -> int:
    """How often images are crafted beside those of points: for all curves that keep them, and for the AWP direction."""
    return any(curve.fixed for curve in curves) + any(curve.directions == ("awp",) for curve in curves)


class Meter:
    """Counts in passes of a batch, forward and back."""

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        settings: Landscape,
        check: Callable[[], None],
        threads: int = 1,
    ) -> None:
        """Prints the cost.

        Args:
            sizes: For every network, on how many images the loss is drawn, and how many more there are for the gap.
            settings: What is visited.
            check: Called often; may raise.
            threads: How many points are visited side by side.
        """
        self._check, self._threads = check, threads
        self._start = time.perf_counter()
        batches = [[-(-images // settings.batch_size) for images in pair] for pair in sizes]
        self._total = sum(cost(settings, own, other) for own, other in batches)
        self._at_start = passes_at(settings)
        self._pace, self._heartbeat, self._begun = Pace(self._total), Heartbeat(), False
        points, images = sum(len(curve.coefficients) for curve in settings.curves), sizes[0][0]
        networks = f"{len(sizes)} networks" if len(sizes) > 1 else "1 network"
        print(
            f"{networks} x {points} points x {images:,} images, {settings.attack}: about "
            f"{self._total * min(settings.batch_size, images):,} passes of an image forward and back",
            flush=True,
        )

    def begin(self, passes: Passes, batch: Labelled) -> None:
        """Measures a batch of the first network, and says how long all will take."""
        if self._begun:
            return
        passes.height(passes.weights, [batch])  # traces
        start = time.perf_counter()
        passes.height(passes.weights, [batch])
        seconds = (time.perf_counter() - start) / self._at_start * self._total / self._threads
        print(f"about {duration(seconds)} in all", flush=True)
        self._pace, self._begun = Pace(self._total), True

    def advance(self, passes: int) -> None:
        """So many are made."""
        self._pace.advance(passes)
        self._heartbeat.beat(self._line)
        self._check()

    def skip(self, passes: int) -> None:
        """So many had been made before."""
        self._pace.skip(passes)

    def seconds(self) -> float:
        """Since the start."""
        return round(time.perf_counter() - self._start, 1)

    def _line(self) -> str:
        return f"landscape {100 * self._pace.part:3.0f} %  {duration(self._pace.left)} left"
