"""PreActResNet-18 in PyTorch, for comparisons: it takes the arrays of awp_tf.networks.dump_torch_weights."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from awp_tf.infra.errors import UserError


def load(state: Mapping[str, np.ndarray], mean: Any, std: Any) -> Callable[[Any], Any]:
    """A function from torch images [B, C, H, W] in [0, 1] to logits, in evaluation mode.

    Args:
        state: PyTorch names to arrays.
        mean: Per channel, or None.
        std: Per channel, or None.

    Raises:
        UserError: torch is missing, or these are another network's weights.
    """
    try:
        import torch  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UserError("expected PyTorch; install it with: pip install -e '.[torch]'.") from None
    if "layer4.1.conv2.weight" not in state:
        raise UserError(f"expected the weights of a preact_resnet18, received {sorted(state)[:3]}, ...")
    weights = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}
    shift, scale = (
        torch.tensor(np.reshape(np.float32(default if given is None else given), [1, -1, 1, 1]))
        for given, default in ((mean, 0.0), (std, 1.0))
    )
    conv2d, batch_norm = torch.nn.functional.conv2d, torch.nn.functional.batch_norm

    def activated(x: Any, name: str) -> Any:
        statistics = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return torch.relu(batch_norm(x, *statistics))

    def block(x: Any, name: str, stride: int) -> Any:
        h = activated(x, f"{name}.bn1")
        shortcut = weights.get(f"{name}.shortcut.0.weight")
        kept = x if shortcut is None else conv2d(h, shortcut, stride=stride)
        h = conv2d(h, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        return conv2d(activated(h, f"{name}.bn2"), weights[f"{name}.conv2.weight"], padding=1) + kept

    def network(x: Any) -> Any:
        x = conv2d((x - shift) / scale, weights["conv1.weight"], padding=1)
        for stage in range(1, 5):
            x = block(x, f"layer{stage}.0", 1 if stage == 1 else 2)
            x = block(x, f"layer{stage}.1", 1)
        return activated(x, "bn").mean((2, 3)) @ weights["linear.weight"].T + weights["linear.bias"]

    return network
