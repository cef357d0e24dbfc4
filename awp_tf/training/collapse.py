"""Notices catastrophic overfitting: robust accuracy is gone within an epoch, while the training loss still falls."""

from collections.abc import Mapping, Sequence

_SHARE = 0.5  # of what was there before; robust overfitting, which takes many epochs, loses less at a time
_LEAST = 0.1  # below, half of it may be noise


def collapse(history: Sequence[Mapping[str, float]], values: Mapping[str, float]) -> str | None:
    """A line where robust accuracy on validation images fell to less than half since it was last measured.

    Single-step attacks do that (Wong et al., ICLR 2020): the network learns to withstand the one step alone, so the
    loss under it falls. Where that rises, training has merely diverged. Clean accuracy is no sign: it may fall or rise.

    Args:
        history: What was measured after earlier epochs.
        values: What was measured now: "validation/robust" in 0..1, where it was due, and "train/epoch_loss".
    """
    before = next((epoch for epoch in reversed(history) if "validation/robust" in epoch), None)
    if before is None or "validation/robust" not in values:
        return None
    was, now = before["validation/robust"], values["validation/robust"]
    if was < _LEAST or now >= _SHARE * was or values["train/epoch_loss"] >= before["train/epoch_loss"]:
        return None
    return (
        f"warning: robust accuracy on validation images fell from {100 * was:.1f} to {100 * now:.1f} % since epoch "
        f"{before['epoch']:.0f}, while the training loss went on falling: catastrophic overfitting. best.keras keeps "
        "an earlier epoch; take more steps, a shorter one, or N-FGSM (gin/n_fgsm.gin)."
    )
