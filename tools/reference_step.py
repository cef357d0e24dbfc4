"""The training steps of csdongxian/AWP (AT_AWP/train_cifar10.py, trades_AWP/train_trades_cifar.py), by its own classes.

    python tools/reference_step.py CHECKOUT BATCH.npz METHOD PRECISION

A child of awp_tf.infra.apart, by its path: as a module of tools it would begin with TensorFlow, whose memory and time
are not PyTorch's.
PreActResNet-18 at its full width, PGD-10, Linf 8/255; METHOD is at_awp or trades_awp, PRECISION float32 or bfloat16
(autocast).
"""

import importlib.util
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from awp_tf.infra.apart import Facts, serve, since_start
from awp_tf.infra.errors import UserError, one_of
from awp_tf.infra.memory import GIB

_EPSILON, _STEP_SIZE, _STEPS = 8 / 255, 2 / 255, 10


class _Reference:
    """The networks, optimizer and weight adversary of a checkout, and a batch."""

    def __init__(self, checkout: str, x: np.ndarray, y: np.ndarray, method: str, precision: str) -> None:
        folder = pathlib.Path(checkout)
        if not (folder / "AT_AWP" / "utils_awp.py").is_file():
            raise UserError(f"--reference: expected a checkout of csdongxian/AWP, received {checkout!r}.")
        try:
            import torch  # noqa: PLC0415 (an extra)
        except ImportError:
            raise UserError("--reference: expected PyTorch; install it with: pip install -e '.[torch]'.") from None
        self.torch, self.functional = torch, torch.nn.functional
        make = _module(folder / "AT_AWP" / "preactresnet.py").PreActResNet18
        self.device = device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network, proxy = (make().to(device) for _ in range(2))
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        proxy_optimizer = torch.optim.SGD(proxy.parameters(), lr=0.01)
        if method == "at_awp":
            adversary = _module(folder / "AT_AWP" / "utils_awp.py").AdvWeightPerturb
            self.adversary = adversary(self.network, proxy, proxy_optimizer, 0.01)
        else:
            adversary = _module(folder / "trades_AWP" / "utils_awp.py").TradesAWP
            self.adversary = adversary(self.network, proxy, proxy_optimizer, 0.005)
        self.images = torch.tensor(x.transpose(0, 3, 1, 2), device=device)
        self.labels = torch.tensor(y, dtype=torch.long, device=device)
        self.autocast = lambda: torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def descend(self, loss: Any, difference: Any) -> float:
        """Updates the weights, which the difference perturbs."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.adversary.restore(difference)
        return float(loss.item())

    def facts(self, loss: float) -> Facts:
        """Of a step; "peak" is that of the GPU where there is one."""
        on_gpu = self.device == "cuda"
        return {"loss": loss, **({"peak": self.torch.cuda.max_memory_allocated() / GIB} if on_gpu else {})}


def at_awp(reference: Any) -> float:
    """A step of AT_AWP/train_cifar10.py: the attack with loss.backward(), gradients of the weights included."""
    torch, network, images, labels = reference.torch, reference.network, reference.images, reference.labels
    cross_entropy = reference.functional.cross_entropy
    network.train()
    with reference.autocast():
        delta = torch.zeros_like(images).uniform_(-_EPSILON, _EPSILON)
        delta = torch.clamp(images + delta, 0, 1) - images
        delta.requires_grad = True
        for _ in range(_STEPS):
            cross_entropy(network(images + delta), labels).backward()
            moved = torch.clamp(delta.data + _STEP_SIZE * torch.sign(delta.grad), -_EPSILON, _EPSILON)
            delta.data = torch.clamp(images + moved, 0, 1) - images
            delta.grad.zero_()
        cross_entropy(network(images + delta), labels, reduction="none")  # the reference chooses among restarts by it
        adversarial = torch.clamp(images + delta, 0, 1).detach()
        difference = reference.adversary.calc_awp(inputs_adv=adversarial, targets=labels)
        reference.adversary.perturb(difference)
        loss = reference.descend(cross_entropy(network(adversarial), labels), difference)
        network(images)  # the reference's pass for its log
    return loss


def trades_awp(reference: Any) -> float:
    """A step of trades_AWP/train_trades_cifar.py, beta 6: the clean probabilities anew in every step of the attack."""
    torch, network, images = reference.torch, reference.network, reference.images
    functional = reference.functional

    def divergence(adversarial: Any, reduction: str) -> Any:
        predicted = functional.log_softmax(network(adversarial), dim=1)
        return functional.kl_div(predicted, functional.softmax(network(images), dim=1), reduction=reduction)

    with reference.autocast():
        network.eval()
        adversarial = images + 0.001 * torch.randn_like(images)
        for _ in range(_STEPS):
            adversarial.requires_grad_()
            gradient = torch.autograd.grad(divergence(adversarial, "sum"), [adversarial])[0]
            adversarial = adversarial.detach() + _STEP_SIZE * torch.sign(gradient)
            adversarial = torch.min(torch.max(adversarial, images - _EPSILON), images + _EPSILON).clamp(0, 1)
        network.train()
        difference = reference.adversary.calc_awp(
            inputs_adv=adversarial, inputs_clean=images, targets=reference.labels, beta=6.0
        )
        reference.adversary.perturb(difference)
        robust = divergence(adversarial, "batchmean")
        loss = functional.cross_entropy(network(images), reference.labels) + 6.0 * robust
        return reference.descend(loss, difference)


_METHODS: dict[str, Callable[[Any], float]] = {"at_awp": at_awp, "trades_awp": trades_awp}


def prepare(arguments: Sequence[str]) -> tuple[Callable[[], Facts], Facts]:
    """Of a checkout, a file with x [B, H, W, C] in [0, 1] and y [B], a method and a precision, for serve.

    Raises:
        UserError: torch is not installed, the checkout is something else, or there is no such method or precision.
    """
    checkout, batch, method, precision = arguments
    one_of("--reference", method, tuple(_METHODS))
    one_of("--reference, in precision", precision, ("float32", "bfloat16"))
    with np.load(batch, allow_pickle=False) as data:
        reference = _Reference(checkout, data["x"], data["y"], method, precision)
    step = _METHODS[method]
    made = since_start()
    step(reference)
    return lambda: reference.facts(step(reference)), {"made": made, "first": since_start()}


def _module(path: pathlib.Path) -> Any:
    """A file of the checkout, as a module of its own name: the folders have files of the same names."""
    name = f"reference_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    serve(prepare, sys.argv[1:])
