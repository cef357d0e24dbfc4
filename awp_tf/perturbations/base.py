"""What a search for the worst weights is; its null object; how far it went."""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from awp_tf import noise
from awp_tf.types import Gradient, Weights

Points = Sequence[Weights]  # one or more, each all weights of the network
Loss = Callable[[Weights], tf.Tensor]  # the outer loss of each example, [B], as a function of the weights

# (begin, keep): places in [state of BatchNorm before the step, after each pass of the search, after the pass at the
# nearby point]. Every pass starts from `begin` (the latest, for -1), and `keep` is what the network has afterwards.
BN_UPDATES = {"clean": (0, 1), "perturbed": (0, -1), "both": (-1, -1)}


class Perturbation:
    """A search for the worst weights near the given ones, and what is minimised there.

    Attributes:
        bn_update: Which passes move the running statistics of BatchNorm: "perturbed", those at the nearby point (AWP's
            code); "clean", the first pass of the search, which is at the weights themselves; "both". Where nothing is
            searched, the pass at the point counts.
        weight_decay_at: Where weight decay is taken: at the "nearby" point, or at the "centre".
    """

    bn_update: str = "perturbed"
    weight_decay_at: str = "nearby"

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """Nearby points, each in the order of weights.

        Args:
            weights: The centre.
            gradient: The gradient of the outer loss at any weights.
            seed: The same on every replica, so that all train at the same point.
            start: Nearby points to continue from, in place of the centre; inputs were attacked at the first.
        """
        raise NotImplementedError

    def everywhere(self) -> "Perturbation":
        """The same without its rule of which tensors move, for those who choose the tensors themselves (Where)."""
        return self

    def loss(self, loss: Loss, weights: Weights, seed: noise.Seed, begun: tf.Tensor) -> tf.Tensor:
        """What is minimised at a nearby point, per example, [B]: the outer loss there, unless a subclass says more.

        Args:
            loss: The outer loss at any weights.
            weights: The point.
            seed: The same on every replica.
            begun: 1 where the weights are perturbed by now, 0 before (`perturb_from`).
        """
        return loss(weights)

    @property
    def is_idle(self) -> bool:
        """Whether it changes nothing, for a warning; settings that are schedules have their value of one time."""
        return False

    @property
    def needs_second_derivatives(self) -> bool:
        """Whether the network has to be smooth."""
        return False


@dataclasses.dataclass(frozen=True)
class Identity(Perturbation):
    """No perturbation: the null object that turns AWP off."""

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """Returns weights as the one point; the gradient is never asked for."""
        return [weights]

    @property
    def is_idle(self) -> bool:
        """It is."""
        return True


def relative_norm(weights: Weights, nearby: Weights) -> tf.Tensor:
    """||v|| / ||w|| of a group of tensors of rank >= 2 taken together; a scalar."""
    v = [n - w for n, w in zip(nearby, weights, strict=True)]
    return tf.linalg.global_norm(v) / (tf.linalg.global_norm(weights) + 1e-20)


def relative_norms(names: Sequence[str], weights: Weights, points: Points) -> dict[str, tf.Tensor]:
    """||v|| / ||w||, the mean over the points, as "v_over_w/<group>" for each group of kernels.

    A group is the first part of the names of its variables.
    """
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if weights[index].shape.rank >= 2:
            groups.setdefault(name.split("/")[0].split(".")[0], []).append(index)
    return {
        f"v_over_w/{group}": tf.reduce_mean(
            [relative_norm([weights[i] for i in places], [at[i] for i in places]) for at in points]
        )
        for group, places in groups.items()
    }
