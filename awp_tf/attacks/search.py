"""Attacks that judge themselves: the step-wise search that evaluation runs, and what it is handed.

An `Attack` maximises a function and returns where it got to. A `Search` knows the classifier and the
labels, notices which images are already fooled, and can be stopped after any step, so that fooled
images can leave the batch. Its state is a tuple of tensors whose first axis is the batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from awp_tf import losses
from awp_tf.attacks.pgd import Attack
from awp_tf.infra.errors import at_least, one_of
from awp_tf.losses import misclassified
from awp_tf.noise import ImageSeeds
from awp_tf.threats import Threat, per_example
from awp_tf.types import Predict

State = Any


class Examples(NamedTuple):
    """Images to be misclassified.

    Attributes:
        x: Images in [0, 1], [B, H, W, C].
        labels: Their classes, int32, [B].
        targets: The wrong classes a targeted search aims at, int32, [B].
        image: Their places in the data set, int64, [B]; noise depends on them.
    """

    x: tf.Tensor
    labels: tf.Tensor
    targets: tf.Tensor
    image: tf.Tensor


Loss = Callable[[tf.Tensor, Examples], tf.Tensor]

# What a search climbs on: logits [B, K] to [B].
LOSSES: dict[str, Loss] = {
    "ce": lambda logits, examples: losses.cross_entropy(logits, examples.labels),
    "margin": lambda logits, examples: losses.margin(logits, examples.labels),
    "dlr": lambda logits, examples: losses.dlr(logits, examples.labels),
    "targeted-margin": lambda logits, examples: losses.targeted_margin(logits, examples.labels, examples.targets),
    "targeted-dlr": lambda logits, examples: losses.targeted_dlr(logits, examples.labels, examples.targets),
}


class Search(Protocol):
    """A step-wise attack on a classifier.

    Every state has the fields `fooled`, bool [B], and `adversarial`, [B, H, W, C]: an image of the ball
    that is misclassified where fooled holds, and any image elsewhere.
    """

    @property
    def threat(self) -> Threat | None:
        """The ball it searches."""
        ...

    @property
    def steps(self) -> int:
        """How often step is called."""
        ...

    @property
    def restarts(self) -> int:
        """How often all of it is repeated with other noise, on images not fooled yet."""
        ...

    @property
    def targets(self) -> int:
        """How many target classes are tried, from the most likely wrong one on; 0 is untargeted."""
        ...

    @property
    def randomised(self) -> bool:
        """Whether a success may be chance, as on a randomised network: then nobody leaves before the end."""
        ...

    def begin(self, examples: Examples, seeds: ImageSeeds, restart: tf.Tensor) -> State:
        """The state before the first step; the network is not called. Restart counts from 0."""
        ...

    def step(self, predict: Predict, examples: Examples, state: State, i: tf.Tensor, seeds: ImageSeeds) -> State:
        """The state after step i (from 0), the same for all images of the batch."""
        ...


class Found(NamedTuple):
    """The least a state holds; see Search."""

    fooled: tf.Tensor
    adversarial: tf.Tensor


@dataclasses.dataclass(frozen=True)
class LastIterate:
    """An attack run to its end in one step, and judged by its last image, as papers report PGD.

    Attributes:
        attack: What climbs.
        loss: On what: "ce", or "margin" (then it is the CW attack of the AWP paper's table).
        restarts: How often.
    """

    attack: Attack
    loss: str = "ce"
    restarts: int = 1
    targets = 0
    steps = 1
    randomised = False

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        one_of("LastIterate.loss", self.loss, LOSSES)
        at_least("LastIterate.restarts", self.restarts, 1)

    @property
    def threat(self) -> Threat | None:
        """That of the attack."""
        return self.attack.threat

    def begin(self, examples: Examples, seeds: ImageSeeds, restart: tf.Tensor) -> Found:
        """See Search."""
        return Found(tf.zeros_like(examples.labels, tf.bool), examples.x)

    def step(self, predict: Predict, examples: Examples, state: Found, i: tf.Tensor, seeds: ImageSeeds) -> Found:
        """See Search."""
        adversarial = self.attack(lambda x: LOSSES[self.loss](predict(x), examples), examples.x, seeds)
        return Found(misclassified(predict(adversarial), examples.labels), adversarial)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A search carried out on another network; whether it fooled is judged on the one evaluated.

    Attributes:
        source: The other network: images to logits.
        search: What is run on it.
        name: Of the other network.
    """

    source: Predict = dataclasses.field(repr=False)
    search: LastIterate
    name: str = ""
    restarts = 1
    targets = 0
    steps = 1
    randomised = False

    @property
    def threat(self) -> Threat | None:
        """That of the search."""
        return self.search.threat

    def begin(self, examples: Examples, seeds: ImageSeeds, restart: tf.Tensor) -> Found:
        """See Search."""
        return self.search.begin(examples, seeds, restart)

    def step(self, predict: Predict, examples: Examples, state: Found, i: tf.Tensor, seeds: ImageSeeds) -> Found:
        """See Search."""
        adversarial = self.search.step(self.source, examples, state, i, seeds).adversarial
        return Found(misclassified(predict(adversarial), examples.labels), adversarial)


def run(search: Search, predict: Predict, examples: Examples, seeds: ImageSeeds, *, restart: int = 0) -> State:
    """All steps of a search on one batch, nobody leaves: the plain form, for use in Python and in tests."""
    state = search.begin(examples, seeds, tf.constant(restart))
    return advance(search, predict, examples, state, seeds, tf.constant(0), tf.constant(search.steps))


def advance(
    search: Search,
    predict: Predict,
    examples: Examples,
    state: State,
    seeds: ImageSeeds,
    start: tf.Tensor,
    stop: tf.Tensor,
) -> State:
    """The state after the steps start..stop-1, as one tf.while_loop."""

    def body(i: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        return i + 1, search.step(predict, examples, state, i, seeds)

    return tf.while_loop(lambda i, _: i < stop, body, (start, state))[1]


def pick(mask: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """First where mask [B] holds, second elsewhere, for tensors [B, ...]."""
    return tf.where(per_example(mask, first), first, second)


def climb(objective: Callable[[tf.Tensor], tuple[tf.Tensor, Any]], x: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """(What objective returns beside its value, its value [B], its gradient [B, H, W, C]) in one pass."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value, other = objective(x)
        total = tf.reduce_sum(value)
    return other, value, tape.gradient(total, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
