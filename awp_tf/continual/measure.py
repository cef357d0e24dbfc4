"""What is measured of a network on each task: accuracy, validation loss, sharpness."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from awp_tf.attacks import Attack, Clean
from awp_tf.continual.settings import Continual, Sharpness
from awp_tf.continual.tasks import Task
from awp_tf.data import Split, ordered
from awp_tf.data.batches import spread
from awp_tf.evaluation.accuracy import Evaluator
from awp_tf.evaluation.passes import Passes, random_direction, shift
from awp_tf.infra.devices import full_precision
from awp_tf.noise import WEIGHTS, make_seed
from awp_tf.types import Weights

_BATCH = 250

OnBatch = Callable[[int], None]


def head_of(network: keras.Model, classes: Sequence[int]) -> keras.Model:
    """The network with the logits of some classes alone, [B, len(classes)]; it shares all weights."""
    if list(classes) == list(range(network.outputs[0].shape[-1])):
        return network
    logits = keras.ops.take(network.outputs[0], np.array(classes), axis=-1)
    return keras.Model(network.inputs[0], logits, name=f"{network.name}_head")


class Measure:
    """Measures one network again and again, each task at its own head; each is compiled once."""

    def __init__(self, network: keras.Model, tasks: Sequence[Task], settings: Continual) -> None:
        """Nothing is compiled yet.

        Args:
            network: From images to the logits of all classes.
            tasks: In the order in which they are learned.
            settings: What is measured.
        """
        self._tasks, self._settings = tasks, settings
        self._dtype = network.inputs[0].dtype
        heads = {task.classes: head_of(network, task.classes) for task in tasks}
        attacks = settings.test.attacks if settings.attacks else {}
        self._evaluators = {classes: Evaluator(head, attacks) for classes, head in heads.items()}
        in_validation: Attack = settings.validation.attack if settings.attacks else Clean()
        self._losses = {c: Passes(head, in_validation, seed=settings.seed) for c, head in heads.items()}
        self._surfaces = {c: Passes(head, settings.sharpness.attack, seed=settings.seed) for c, head in heads.items()}

    def accuracies(self, place: int, on_batch: OnBatch) -> dict[str, float]:
        """Accuracy of a task on test images, "clean" and (where training attacks) "robust", in 0..1."""
        task, test = self._tasks[place], self._settings.test
        return self._evaluators[task.classes](test.batches(task.test, self._dtype), on_batch)

    def validation_loss(self, place: int, on_batch: OnBatch) -> float:
        """The mean loss of a task on validation images, under the validation attack where training attacks."""
        task, validation = self._tasks[place], self._settings.validation
        batches = list(validation.batches(task.validation, self._dtype))
        passes = self._losses[task.classes]
        passes.refresh()
        with full_precision():
            return passes.height(passes.weights, batches, lambda: on_batch(0)).loss

    def rise(self, place: int, on_batch: OnBatch) -> list[float]:
        """How much the loss of a task on training images rises at each alpha, the mean over directions."""
        task, sharpness = self._tasks[place], self._settings.sharpness
        passes = self._surfaces[task.classes]
        passes.refresh()
        with full_precision():
            return rise(passes, task.train, sharpness, self._settings.seed, on_batch)


def rise(passes: Passes, images: Split, sharpness: Sharpness, seed: int, on_batch: OnBatch) -> list[float]:
    """See Measure.rise; the directions are those of pipelines.landscape: a function of the seed and their number."""
    batches = list(ordered(spread(images, sharpness.examples), _BATCH, passes.weights[0].dtype))

    def loss(direction: Weights, alpha: float) -> float:
        at = shift(passes.weights, [direction], [alpha]) if alpha else passes.weights
        return passes.height(at, batches, lambda: on_batch(0)).loss

    found = []
    for number in range(sharpness.directions):
        direction = random_direction(passes.weights, make_seed(seed, WEIGHTS, number + 1))
        found.append([loss(direction, alpha) for alpha in sharpness.alphas])
    here = loss([], 0.0)
    return [float(value) for value in np.mean(found, axis=0) - here]
