"""Notices catastrophic overfitting: robust accuracy that is gone within an epoch, while clean accuracy stays."""

from collections.abc import Mapping, Sequence

_SHARE = 0.5  # of what was there before; robust overfitting, which takes many epochs, loses less at a time


def collapse(history: Sequence[Mapping[str, float]], values: Mapping[str, float]) -> str | None:
    """A line where robust accuracy on validation images fell to less than half since it was last measured.

    Single-step attacks do that (Wong et al., ICLR 2020): the network learns to mask its gradient along the one step.
    Clean accuracy does not fall with it; where it does, training has merely diverged.

    Args:
        history: What was measured after earlier epochs.
        values: What was measured now: "validation/robust", "validation/clean", in 0..1.
    """
    before = next((epoch for epoch in reversed(history) if "validation/robust" in epoch), None)
    if before is None or "validation/robust" not in values:
        return None
    (was, clean), (now, still) = ((v["validation/robust"], v["validation/clean"]) for v in (before, values))
    if now >= _SHARE * was or still < _SHARE * clean or was < 0.15:
        return None
    return (
        f"warning: robust accuracy on validation images fell from {100 * was:.1f} to {100 * now:.1f} % since epoch "
        f"{before['epoch']:.0f}, clean accuracy did not: catastrophic overfitting. best.keras keeps an earlier epoch; "
        "take more steps, a shorter one, or N-FGSM (gin/n_fgsm.gin)."
    )
