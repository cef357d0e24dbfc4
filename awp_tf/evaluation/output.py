"""The files of a finished evaluation."""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from awp_tf.data.splits import evenly
from awp_tf.evaluation import pictures
from awp_tf.evaluation.assessment import Assessment
from awp_tf.evaluation.card import Card, markdown
from awp_tf.evaluation.protocol import Subject
from awp_tf.evaluation.sanity import AccuracyCurve
from awp_tf.evaluation.state import SplitResult
from awp_tf.infra.files import write_arrays, write_bytes, write_text
from awp_tf.infra.tensorboard import Board, not_fatal

CARD = "evaluation.json"
_SHOWN = 8  # examples in the picture


def write(
    path: pathlib.Path,
    card: Card,
    subject: Subject,
    parts: Mapping[str, Assessment],
    results: Mapping[str, SplitResult],
    *,
    save_adversarial: bool,
) -> None:
    """Everything but evaluation.json, which comes last and says that the rest is there."""
    first = next(iter(parts))
    prefixes = {part: "" if part == first else f"{part}/" for part in parts}
    arrays = {k: v for part, result in results.items() for k, v in result.arrays(prefixes[part]).items()}
    write_arrays(path / "evaluation.npz", arrays)
    write_text(path / "evaluation.md", markdown(card))
    if save_adversarial:
        for part, assessment in parts.items():
            for name in results[part].robust:
                file = adversarial_file(name, prefixes[part])
                assessment.keep(name, results[part].fooled(name), path / file)
    with not_fatal("the pictures of the evaluation"):
        drawn = _draw(card, subject, parts[first], results[first])
        for name, picture in drawn.items():
            write_bytes(path / f"evaluation_{name}.png", picture)
        _log(path, card, drawn)


def adversarial_file(name: str, prefix: str = "") -> str:
    """What a cascade's adversarial images are called."""
    return f"adversarial_{prefix.replace('/', '_')}{name}.npy"


def _draw(card: Card, subject: Subject, assessment: Assessment, result: SplitResult) -> dict[str, bytes]:
    """Pictures by name; examples only where an image was fooled."""
    accuracy = card["accuracy"][next(iter(card["accuracy"]))]
    drawn = {
        "curve": pictures.curve(
            AccuracyCurve(**card["curve"]),
            threat=card["threat"],
            epsilon=assessment.protocol.threat.epsilon,
            worst=accuracy["worst case"],
        ),
        "classes": pictures.classes(card["per_class"], subject.class_names),
    }
    name = next((name for name in reversed(list(result.robust)) if result.fooled(name).any()), None)
    if name is not None:
        fooled = np.flatnonzero(result.fooled(name))
        places = fooled[evenly(len(fooled), _SHOWN)]
        adversarial = assessment.adversarial(name)[places]
        given = assessment.predictions(adversarial)
        names = subject.class_names or [str(k) for k in range(subject.classifier.classes)]
        titles = [f"{names[result.labels[p]]}\n→ {names[k]}" for p, k in zip(places, given, strict=True)]
        drawn["examples"] = pictures.examples(assessment.pixels(places).numpy(), adversarial, titles)
    return drawn


def _log(path: pathlib.Path, card: Card, drawn: Mapping[str, bytes]) -> None:
    """The same for TensorBoard."""
    board = Board(path / "tensorboard")
    for part, accuracies in card["accuracy"].items():
        board.scalars(0, {f"evaluation/{part}/{name}": value for name, value in accuracies.items()})
    for epsilon, accuracy in zip(card["curve"]["epsilons"], card["curve"]["accuracies"], strict=True):
        board.scalars(round(1000 * epsilon), {"evaluation/accuracy at epsilon x 1000": accuracy})
    board.text("evaluation/card", markdown(card))
    for name, picture in drawn.items():
        board.picture(f"evaluation/{name}", tf.io.decode_png(picture, channels=3))
