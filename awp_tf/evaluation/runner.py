"""Carries out one search on one batch of images; fooled images leave it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks.search import Examples, Search, State, advance
from awp_tf.infra.devices import Devices
from awp_tf.networks.classifier import Classifier
from awp_tf.noise import ImageSeeds
from awp_tf.types import Weights

_FIRST_STOP = 5  # steps before the first look at who is fooled; later looks come a quarter further each


class Outcome(NamedTuple):
    """What a search found on a batch.

    Attributes:
        fooled: Places in the batch of the images that are misclassified now, rising.
        adversarial: What they became, [len(fooled), H, W, C].
    """

    fooled: np.ndarray
    adversarial: np.ndarray


class Runner:
    """One search on one classifier, traced once whatever the batch and the device; threads may share it.

    Every few steps the fooled images leave and the others close ranks. Batches have one of a few sizes,
    rows that are too many repeat an image, and each image's noise is its own: who else is in the batch
    changes nothing but rounding.
    """

    def __init__(self, classifier: Classifier, search: Search, devices: Devices = Devices()) -> None:
        """Nothing is traced before the first call.

        Args:
            classifier: What is attacked.
            search: What is carried out.
            devices: Where; each gets a copy of the classifier's weights.
        """
        self._search = search
        self._weights = devices.copies(list(classifier.weights))
        shape, dtype = classifier.shape, classifier.dtype
        flat = [tf.TensorSpec([None], kind) for kind in (tf.int32, tf.int32, tf.int64)]
        examples = Examples(tf.TensorSpec([None, *shape], dtype), *flat)
        key, number = tf.TensorSpec([2], tf.int64), tf.TensorSpec([], tf.int32)

        def begin(examples: Examples, key: tf.Tensor, restart: tf.Tensor) -> State:
            state = search.begin(examples, ImageSeeds(key, examples.image), restart)
            # The first axis of some tensors may have come out fixed, of others unknown.
            return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [None, *t.shape[1:]]), state)

        def go_on(
            weights: Weights, examples: Examples, state: State, key: tf.Tensor, start: tf.Tensor, stop: tf.Tensor
        ) -> State:
            predict = classifier.bind(weights)
            return advance(search, predict, examples, state, ImageSeeds(key, examples.image), start, stop)

        self._begin = tf.function(begin, input_signature=[examples, key, number], autograph=False)
        made = self._begin.get_concrete_function().structured_outputs
        state = tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), made)
        weights = [tf.TensorSpec(w.shape, w.dtype) for w in classifier.weights]
        signature = [weights, examples, state, key, number, number]
        self._advance = tf.function(go_on, input_signature=signature, autograph=False)

    def __call__(
        self,
        examples: Examples,
        key: tf.Tensor,
        restart: int,
        on_progress: Callable[[float, int], None] = lambda part, left: None,
        device: int = 0,
    ) -> Outcome:
        """Searches until all images are fooled or all steps are done.

        Args:
            examples: Arrays, at least one image.
            key: What noise depends on, [2].
            restart: Which restart this is, from 0.
            on_progress: Called every few steps with the part of them that is done, in 0..1, and the number of
                images not fooled yet; may raise.
            device: On which of the devices this is called.
        """
        weights = self._weights[device]
        rows = np.arange(len(examples.labels))  # which image each row of the batch is
        real = len(rows)  # rows beyond are repetitions
        examples, rows = _take(examples, rows, _pad(rows))
        state = self._begin(examples, key, tf.constant(restart))
        found: dict[int, np.ndarray] = {}
        start = 0
        while start < self._search.steps:
            stop = min(self._search.steps, start + max(_FIRST_STOP, start // 4))
            state = self._advance(weights, examples, state, key, tf.constant(start), tf.constant(stop))
            start = stop
            fooled = state.fooled.numpy() & (start == self._search.steps or not self._search.randomised)
            for row in np.flatnonzero(fooled[:real]):
                if rows[row] not in found:
                    found[rows[row]] = state.adversarial[row].numpy()
            left = np.flatnonzero(~fooled[:real])
            on_progress(stop / self._search.steps, len(left))
            if not len(left):
                break
            keep = _pad(left)
            if len(keep) < len(rows):
                (examples, state), rows = _take((examples, state), rows, keep)
                real = len(left)
        places = np.array(sorted(found), np.int64)
        images = [found[place] for place in places]
        return Outcome(places, np.stack(images) if images else np.zeros([0, *examples.x.shape[1:]], np.float32))


def _take(tensors: State, rows: np.ndarray, keep: np.ndarray) -> tuple[State, np.ndarray]:
    return tf.nest.map_structure(lambda t: tf.gather(t, keep), tensors), rows[keep]


def _pad(rows: np.ndarray) -> np.ndarray:
    """Rows with copies of the first, up to one of 16 sizes per power of two (at most 1/16 more): few sizes are met."""
    count = len(rows)
    grain = 1 << max(count.bit_length() - 5, 0)
    return np.concatenate([rows, np.repeat(rows[:1], -count % grain)])
