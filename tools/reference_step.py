"""The training step of csdongxian/AWP, AT_AWP/train_cifar10.py, driven through its own classes.

PyTorch and TensorFlow in one process end in a segmentation fault, so the step runs in a process of its own: this file
as a program. It takes a checkout and an .npz file with x and y, says "ready", and for each line it reads takes a step
and prints the loss.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from awp_tf.infra.errors import UserError


@contextlib.contextmanager
def apart(checkout: str, x: np.ndarray, y: np.ndarray) -> Iterator[Callable[[], float]]:
    """The step of at_awp, taken in a process of its own, which lives as long as the context.

    Raises:
        UserError: See at_awp; or the process ended.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as place:
        np.savez(pathlib.Path(place) / "batch.npz", x=x, y=y)
        line = [sys.executable, __file__, str(pathlib.Path(checkout).resolve()), f"{place}/batch.npz"]
        process = subprocess.Popen(
            line, env={**os.environ, "PYTHONPATH": str(root)}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            try:
                _said(process)

                def step() -> float:
                    print(file=process.stdin, flush=True)
                    return float(_said(process))

                yield step
            finally:
                process.kill()


def _said(process: "subprocess.Popen[str]") -> str:
    """The next line of the process."""
    line = process.stdout.readline().strip() if process.stdout else ""
    if line.startswith("error: "):
        raise UserError(line.removeprefix("error: "))
    if not line:
        raise UserError(f"--reference: its process ended without an answer (exit code {process.wait()}).")
    return line


def at_awp(checkout: str, x: np.ndarray, y: np.ndarray, *, gamma: float = 0.01) -> Callable[[], float]:
    """One AT-AWP step of the reference: PGD-10, Linf 8/255, PreActResNet-18, on the CPU or the GPU.

    Args:
        checkout: A folder with AT_AWP/.
        x: Images in [0, 1], shape [B, H, W, C].
        y: Labels, shape [B].
        gamma: Of the weight perturbation.

    Returns:
        A function that takes a step and returns the outer loss.

    Raises:
        UserError: torch is not installed, or the checkout is something else.
    """
    folder = pathlib.Path(checkout) / "AT_AWP"
    if not (folder / "utils_awp.py").is_file():
        raise UserError(f"--reference: expected a checkout of csdongxian/AWP, received {checkout!r}.")
    try:
        import torch  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UserError("--reference: expected PyTorch; install it with: pip install -e '.[torch]'.") from None
    sys.path.insert(0, str(folder))
    import preactresnet  # noqa: PLC0415 (from the checkout)
    import utils_awp  # noqa: PLC0415 (from the checkout)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, proxy = (preactresnet.PreActResNet18().to(device) for _ in range(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    adversary = utils_awp.AdvWeightPerturb(network, proxy, torch.optim.SGD(proxy.parameters(), lr=0.01), gamma)
    images = torch.tensor(x.transpose(0, 3, 1, 2), device=device)
    labels = torch.tensor(y, dtype=torch.long, device=device)
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> float:
        network.train()
        adversarial = _pgd(torch, network, images, labels)
        difference = adversary.calc_awp(inputs_adv=adversarial, targets=labels)
        adversary.perturb(difference)
        loss = cross_entropy(network(adversarial), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        adversary.restore(difference)
        network(images)  # the reference's pass for its log
        return float(loss.item())

    return step


def _pgd(torch: Any, network: Any, images: Any, labels: Any, epsilon: float = 8 / 255, alpha: float = 2 / 255) -> Any:
    """The attack as that file has it: loss.backward(), weights' gradients included, and one pass at the end."""
    cross_entropy = torch.nn.functional.cross_entropy
    delta = torch.zeros_like(images).uniform_(-epsilon, epsilon)
    delta = torch.clamp(images + delta, 0, 1) - images
    delta.requires_grad = True
    for _ in range(10):
        cross_entropy(network(images + delta), labels).backward()
        moved = torch.clamp(delta.data + alpha * torch.sign(delta.grad), -epsilon, epsilon)
        delta.data = torch.clamp(images + moved, 0, 1) - images
        delta.grad.zero_()
    cross_entropy(network(images + delta), labels, reduction="none")
    return torch.clamp(images + delta, 0, 1).detach()


def main(checkout: str, batch: str) -> None:
    """Answers every line with the loss of a step."""
    try:
        with np.load(batch, allow_pickle=False) as data:
            step = at_awp(checkout, data["x"], data["y"])
    except UserError as error:
        print(f"error: {error}", flush=True)
        return
    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(step(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
