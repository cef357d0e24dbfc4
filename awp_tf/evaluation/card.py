"""The robustness card: what was attacked, how, and what is left; for machines (JSON) and for people (Markdown)."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from awp_tf.attacks.autoattack import Cascade
from awp_tf.evaluation.protocol import Protocol, Subject
from awp_tf.evaluation.sanity import AccuracyCurve, Check
from awp_tf.evaluation.state import SplitResult, gaps
from awp_tf.infra import provenance
from awp_tf.infra.progress import duration, table

Card = dict[str, Any]

UPPER_BOUND = "Without AutoAttack (standard) these accuracies are upper bounds."


def make(
    subject: Subject,
    protocol: Protocol,
    cascades: Mapping[str, Cascade],
    parts: Mapping[str, SplitResult],
    checks: Sequence[Check],
    curve: AccuracyCurve,
    fingerprint: Mapping[str, str],
    *,
    whole: bool,
) -> Card:
    """All that is reported.

    The first fields have RobustBench's names and forms (accuracies are texts in %); autoattack_acc is
    set where the standard version was run on the whole test set, as there.
    """
    first, classifier = parts[protocol.parts[0]], subject.classifier
    accuracy = first.accuracies()
    standard = whole and protocol.parts[0] == "test" and "standard" in cascades and not cascades["standard"].remarks
    return {
        "name": subject.name,
        "dataset": subject.data,
        "architecture": classifier.name,
        "eps": _fraction(protocol.threat.epsilon),
        "clean_acc": _percent(accuracy["clean"]),
        "autoattack_acc": _percent(accuracy["standard"]) if standard else None,
        "threat": type(protocol.threat).__name__,
        "trustworthy": all(check.passed for check in checks),
        "upper_bound": not any(cascade.is_autoattack for cascade in cascades.values()),
        "accuracy": {part: result.accuracies() for part, result in parts.items()},
        "images": {part: len(result.labels) for part, result in parts.items()},
        "robust_gap": gaps(parts),
        "checks": [check._asdict() for check in checks],
        "curve": curve._asdict(),
        "class_names": list(subject.class_names),
        "per_class": first.per_class(classifier.classes),
        "attacks": {name: _description(cascade) for name, cascade in cascades.items()},
        "network": {
            "shape": list(classifier.shape),
            "classes": classifier.classes,
            "parameters": classifier.parameters,
            "sha256": classifier.digest,
        },
        "seed": protocol.seed,
        "batch_size": protocol.batch_size,
        "config_sha256": hashlib.sha256((subject.config or fingerprint["protocol"]).encode()).hexdigest(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "fingerprint": dict(fingerprint),
        "seconds": {part: dict(result.seconds) for part, result in parts.items()},
    }


def markdown(card: Mapping[str, Any]) -> str:
    """The card as a person reads it."""
    curve = card["curve"]
    sections = [
        f"# Robustness of {card['name']}",
        _verdict(card),
        results(card),
        worst_class(card),
        "An image counts as robust where it is classified correctly and no attack fooled it; *worst case* takes all "
        "attacks together, image by image. Adversarial images were saved, read back and classified anew.",
        "## What was attacked",
        _subject_table(card),
        "## How",
        *(_attack_text(name, attack) for name, attack in card["attacks"].items()),
        f"Seed {card['seed']}, batches of {card['batch_size']}.",
        "## Checks",
        table(["check", "", "found"], [_check_row(check) for check in card["checks"]]),
        "## Accuracy and epsilon",
        f"PGD-20 on the margin, on {curve['images']} images; the last ball holds every image.",
        table(
            ["epsilon", *(f"{epsilon:.4g}" for epsilon in curve["epsilons"])],
            [["accuracy", *(f"{100 * value:.1f} %" for value in curve["accuracies"])]],
        ),
        "## Made with",
        ", ".join(f"{name} {version}" for name, version in card["versions"].items())
        + f"; commit {card['commit'] or 'unknown'}; configuration {card['config_sha256'][:16]}",
    ]
    return "\n\n".join(sections) + "\n"


def results(card: Mapping[str, Any]) -> str:
    """The table of accuracies, with the time each took."""
    parts = list(card["accuracy"])
    rows = []
    for name in card["accuracy"][parts[0]]:
        cascade, _, attack = name.partition("/")
        alone = attack and len(card["attacks"][cascade]["searches"]) == 1
        if alone:
            continue  # the cascade's own row says the same
        seconds = sum(_seconds(card, part, cascade, attack) for part in parts)
        label = f"{cascade}: after {attack}" if attack else name
        values = [f"{100 * card['accuracy'][part][name]:.2f} %" for part in parts]
        gap = [f"{100 * card['robust_gap'][name]:.2f} %" if name in card["robust_gap"] else ""] * (len(parts) - 1)
        rows.append([label, *values, *gap, duration(seconds) if seconds else ""])
    return table(["attack", *parts, *["gap"] * (len(parts) - 1), "time"], rows)


def worst_class(card: Mapping[str, Any]) -> str:
    """The class of which the fewest images are robust, in a sentence: accuracies over all classes hide it."""
    clean, robust = card["per_class"]["clean"], card["per_class"]["robust"]
    worst = min((k for k, value in enumerate(robust) if value is not None), key=lambda k: (robust[k], clean[k]))
    name = (card.get("class_names") or range(len(robust)))[worst]  # older cards have no names
    return f"Least robust class: {name}, {100 * clean[worst]:.2f} % clean, {100 * robust[worst]:.2f} % robust."


def _verdict(card: Mapping[str, Any]) -> str:
    failed = [f"{check['name']}: {check['detail']}" for check in card["checks"] if not check["passed"]]
    if failed:
        return f"**Not to be trusted: {'; '.join(failed)}.**"
    if card.get("upper_bound"):  # older cards do not say
        return f"All checks passed. {UPPER_BOUND}"
    return "All checks passed."


def _subject_table(card: Mapping[str, Any]) -> str:
    network, images = card["network"], card["images"]
    size = f"{network['parameters']:,} parameters, {network['classes']} classes"
    rows = [
        ["network", f"{card['architecture']}, {size}"],
        ["input", f"{' x '.join(map(str, network['shape']))} in [0, 1]"],
        ["SHA-256", network["sha256"]],
        ["data", f"{card['dataset']}: " + ", ".join(f"{count:,} {part} images" for part, count in images.items())],
        ["threat", f"{card['threat']}, epsilon {card['eps']}"],
    ]
    return table(["", ""], rows)


def _description(cascade: Cascade) -> dict[str, Any]:
    searches = {attack: repr(search) for attack, search in cascade.searches.items()}
    return {"searches": searches, "remarks": list(cascade.remarks)}


def _seconds(card: Mapping[str, Any], part: str, cascade: str, attack: str) -> float:
    seconds = card["seconds"][part]
    return sum(
        value
        for key, value in seconds.items()
        if key == f"{cascade}/{attack}" or (not attack and key.startswith(f"{cascade}/"))
    )


def _attack_text(name: str, attack: Mapping[str, Any]) -> str:
    lines = [
        f"- **{name}**"
        + (f" (not the standard evaluation: {'; '.join(attack['remarks'])})" if attack["remarks"] else "")
    ]
    return "\n".join(lines + [f"  - {step}: `{search}`" for step, search in attack["searches"].items()])


def _check_row(check: Mapping[str, Any]) -> list[str]:
    return [check["name"], "passed" if check["passed"] else "**failed**", check["detail"]]


def _fraction(epsilon: float) -> str:
    levels = epsilon * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 else f"{epsilon:g}"


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.2f}"
