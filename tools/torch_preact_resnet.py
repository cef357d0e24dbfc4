"""PreActResNet-18 in PyTorch, for comparisons: it takes the arrays of awp_tf.networks.dump_torch_weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from awp_tf.checks import UserError


def load(state: Mapping[str, np.ndarray], mean: Any, std: Any) -> Any:
    """A torch.nn.Module from images [B, C, H, W] in [0, 1] to logits, in evaluation mode.

    Args:
        state: PyTorch names to arrays; they say how wide the network is.
        mean: Per channel, or None.
        std: Per channel, or None.

    Raises:
        UserError: torch is missing, or these are another network's weights.
    """
    try:
        import torch  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UserError("expected PyTorch; install it with: pip install -e '.[torch]'.") from None
    tensors = {name: torch.tensor(value) for name, value in state.items()}
    shift, scale = (
        torch.tensor(np.reshape(np.float32(default if given is None else given), [1, -1, 1, 1]))
        for given, default in ((mean, 0.0), (std, 1.0))
    )
    try:
        width, channels = tensors["conv1.weight"].shape[:2]
        network = _network(torch, width, channels, len(tensors["linear.bias"]), shift, scale)
        missing, surplus = network.load_state_dict(tensors, strict=False)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"expected the weights of a preact_resnet18; {str(error).splitlines()[0]}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or surplus:
        raise UserError(f"expected the weights of a preact_resnet18; missing {missing[:3]}, unknown {surplus[:3]}.")
    return network.eval()


def _network(torch: Any, width: int, channels: int, classes: int, shift: Any, scale: Any) -> Any:
    nn, block = torch.nn, _block_class(torch)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
            sizes = [width, *(width * 2**stage for stage in range(4))]
            for stage in range(4):
                before, after = sizes[stage : stage + 2]
                blocks = block(before, after, 1 if stage == 0 else 2), block(after, after, 1)
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.bn = nn.BatchNorm2d(sizes[-1])
            self.linear = nn.Linear(sizes[-1], classes)

        def forward(self, x: Any) -> Any:
            x = self.conv1((x - shift) / scale)
            for stage in range(4):
                x = getattr(self, f"layer{stage + 1}")(x)
            return self.linear(torch.relu(self.bn(x)).mean((2, 3)))

    return Network()


def _block_class(torch: Any) -> Any:
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, before: int, filters: int, stride: int) -> None:
            super().__init__()
            self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(filters)
            self.conv1 = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            changed = stride != 1 or before != filters
            self.shortcut = nn.Sequential(nn.Conv2d(before, filters, 1, stride, bias=False)) if changed else None

        def forward(self, x: Any) -> Any:
            h = torch.relu(self.bn1(x))
            kept = x if self.shortcut is None else self.shortcut(h)
            return self.conv2(torch.relu(self.bn2(self.conv1(h)))) + kept

    return Block
