"""How fast the input alone is (--scale and --everything of tools.benchmark)."""

import dataclasses
import pathlib
import statistics
import tempfile

import numpy as np
import tensorflow as tf

from awp_tf.data import Batches, Data, Split, folders
from awp_tf.data.stored import Decoded, Images
from awp_tf.training.recipe import Recipe
from tools.shared_step import SharedStep
from tools.timing import Step, interleave

EPOCH = 50_000  # images, of CIFAR-10
_BYTES, _FILES, _BURST = 2**28, 1024, 4096  # of images in memory; files; images that the input is timed on


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained: recipe, data's settings, images [B, H, W, C] in [0, 1], labels [B], their number."""

    recipe: Recipe
    data: Data
    x: np.ndarray
    y: np.ndarray
    classes: int

    @property
    def count(self) -> int:
        """Images of the data: an epoch's, or as many as are held in memory here."""
        return max(len(self.x), min(EPOCH, _BYTES // int(np.prod(self.x.shape[1:]))))

    def step(self, strategy: tf.distribute.Strategy, m_sharpness: bool = False) -> SharedStep:
        """The training step on these images, taken once."""
        recipe = dataclasses.replace(self.recipe, m_sharpness=m_sharpness)
        step = SharedStep(recipe, strategy, self.x, self.y, self.classes)
        step()
        return step

    def batches(self, images: Images) -> Batches:
        """Batches of other images, as many at once, with the augmentation of the data."""
        data, split = self.data, Split(images, np.resize(self.y, len(images)))
        return Batches(split, len(self.x), data.augment, 0, 1, self.recipe.dtype, data.mix, self.classes)


def inputs(setting: Setting, folder: pathlib.Path) -> dict[str, Step]:
    """Reads so many images, of arrays and of files."""
    shape, count = setting.x.shape[1:], setting.count
    images = np.random.default_rng(1).integers(0, 256, (count, *shape)).astype(np.uint8)
    found: dict[str, Images] = {"input, in memory": images}
    if shape[0] == shape[1] and shape[2] in (1, 3):
        found["input, image files in place"] = _files(images[: max(len(setting.x), _FILES)], folder / "images")
    return {name: _burst(setting.batches(split)) for name, split in found.items()}


def input_speeds(setting: Setting, runs: int) -> dict[str, float]:
    """Images a second that the input alone delivers, of arrays and of files."""
    count = burst_of(len(setting.x)) * len(setting.x)
    with tempfile.TemporaryDirectory() as place:
        seconds = interleave(inputs(setting, pathlib.Path(place)), runs)
    return {name: count / statistics.median(each) for name, each in seconds.items()}


def _files(images: np.ndarray, folder: pathlib.Path) -> Decoded:
    folder.mkdir()
    files = [folder / f"{place}.png" for place in range(len(images))]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(tf.io.encode_png(image).numpy())
    _, size, _, channels = images.shape
    return Decoded(files, lambda file: folders.decode(file, size, channels), images.shape[1:], 0, str)


def _burst(batches: Batches) -> Step:
    """Reads _BURST images; the stream goes on from call to call."""
    stream = iter(batches.shares(0, 10**9))
    next(stream)

    def read() -> float:
        for _ in range(burst_of(batches.batch_size)):
            x, _ = next(stream)
        return float(x[0, 0, 0, 0])

    return read


def burst_of(batch: int) -> int:
    """Batches; many more than the pipeline has ready."""
    return max(20, _BURST // batch)
