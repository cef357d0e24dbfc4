"""Labels images that have no labels, by a trained network, for robust self-training (gin/rst.gin).

    python -m tools.pseudo_label --workdir=runs/standard --data=unlabelled.npz --output=pseudo.npz
    python -m tools.pseudo_label --network=model.keras --data=images/ --output=pseudo.npz --min_confidence=0.5

The first takes best.keras of a run, or last.keras where there is none (--network another of its networks), the second
any network from [0, 1] images to logits. --data is an .npz file (image, x_train, x_test or one array only), a folder of
images, digits or a TFDS name, of which the training images are taken; labels that they may have are not looked at. The
output holds image, label and, as JSON, provenance. The same command goes on with unfinished work, which is kept beside
the output.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence

import absl.flags
import numpy as np
import tensorflow as tf

from awp_tf.data.batches import to_pixels
from awp_tf.data.extra import PROVENANCE
from awp_tf.data.unlabelled import unlabelled
from awp_tf.infra import npz, provenance
from awp_tf.infra.devices import use_gpus
from awp_tf.infra.errors import UserError, at_least, fraction
from awp_tf.infra.files import local, read_arrays, write_arrays
from awp_tf.infra.progress import Heartbeat, Pace, duration
from awp_tf.infra.result_folder import ResultFolder
from awp_tf.infra.run_folder import read_run, trained_on
from awp_tf.infra.signals import Interrupt
from awp_tf.networks.classifier import Classifier, load
from pipelines import _cli, _flags, _main

for _name in ("workdir", "network", "data", "output", "batch_size", "import"):
    absl.flags.declare_key_flag(_name)  # so that --help shows them
_LEAST = absl.flags.DEFINE_float("min_confidence", 0.0, "Leave out images whose class is less likely; in [0, 1).")

_SECONDS_PER_SAVE = 10.0


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a network says of images.

    Attributes:
        label: The likeliest class, int32 [N].
        confidence: How likely it is, float32 [N].
    """

    label: np.ndarray
    confidence: np.ndarray


def label(classifier: Classifier, images: np.ndarray, batch_size: int, file: pathlib.Path) -> Labels:
    """Labels images, or goes on with that.

    Args:
        classifier: Gives logits.
        images: uint8, or float32 in [0, 1]; [N, H, W, C].
        batch_size: Images at a time.
        file: Where the labels are kept every few seconds, and on the way out.

    Raises:
        Interrupted: A signal came; what is done has been kept.
        UserError: The network gives NaN, or the file cannot be read.
    """
    nothing = {"label": np.zeros(0, np.int32), "confidence": np.zeros(0, np.float32)}
    parts = [Labels(**(read_arrays(file, "unfinished pseudo-labels") or nothing))]
    done, saved, likeliest = len(parts[0].label), time.monotonic(), _likeliest(classifier)
    pace, heartbeat = Pace(len(images), done), Heartbeat()
    with Interrupt() as interrupt:
        try:
            for first in range(done, len(images), batch_size):
                parts.append(likeliest(images[first : first + batch_size]))
                pace.advance(len(parts[-1].label))
                heartbeat.beat(lambda: _line(pace, len(images)))
                if time.monotonic() - saved >= _SECONDS_PER_SAVE:
                    parts, saved = [_save(file, parts)], time.monotonic()
                interrupt.check()
        finally:
            found = _save(file, parts)
    return found


def _likeliest(classifier: Classifier) -> Callable[[np.ndarray], Labels]:
    """Labels a batch; traced once for all sizes."""

    def largest(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        likely = tf.nn.softmax(classifier.predict(x))
        return tf.argmax(likely, axis=1, output_type=tf.int32), tf.reduce_max(likely, axis=1)

    spec = tf.TensorSpec([None, *classifier.shape], classifier.dtype)
    traced = tf.function(largest, input_signature=[spec], autograph=False)

    def likeliest(images: np.ndarray) -> Labels:
        labels, confidence = traced(to_pixels(tf.constant(images), classifier.dtype))
        if not np.isfinite(confidence).all():
            raise UserError(f"network: expected finite logits, received NaN or infinity of {classifier.name}.")
        return Labels(labels.numpy(), confidence.numpy().astype(np.float32))

    return likeliest


def _save(file: pathlib.Path, parts: Sequence[Labels]) -> Labels:
    """All parts as one, which is written."""
    names = [field.name for field in dataclasses.fields(Labels)]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    write_arrays(file, arrays)
    return Labels(**arrays)


def _line(pace: Pace, total: int) -> str:
    return f"{pace.done:,.0f} of {total:,} images, {pace.speed:,.0f} a second, {duration(pace.left)} left"


def run(argv: Sequence[str]) -> None:
    """Reads network and images, labels, writes the file."""
    _flags.refuse("plays no part in labelling", "threat", "max_examples", "seed")
    fraction("--min_confidence", _LEAST.value)
    batch_size = 256 if _flags.BATCH.value is None else _flags.BATCH.value
    at_least("--batch_size", batch_size, 1)
    output = _output()
    use_gpus(1)
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU would round to 10 bits
    classifier, class_names = _network()
    images = unlabelled(_flags.DATA.value, classifier.shape)
    origin = {
        "network": classifier.name,
        "network digest": classifier.digest,
        "data": _flags.DATA.value,
        "images digest": _digest(images),
        "classes": classifier.classes,
        "class names": list(class_names),
        "least confidence": _LEAST.value,
        "software": {**provenance.versions(), "commit": provenance.commit()},
    }
    print(
        f"{_flags.DATA.value}: {len(images):,} images {list(classifier.shape)}, {classifier.classes} classes",
        flush=True,
    )
    folder = ResultFolder(pathlib.Path(f"{output}.state"), "-", "pseudo-labels", _fingerprint(origin, batch_size), ())
    folder.finished()  # raises where the folder is another's
    with folder.open():
        found = label(classifier, images, batch_size, folder.state / "labels.npz")
        print(_write(output, images, found, origin))
    shutil.rmtree(folder.path)


def _output() -> pathlib.Path:
    """Where the labels go.

    Raises:
        UserError: A flag is missing, or names something that is there already.
    """
    for name, flag in (("--data", _flags.DATA), ("--output", _flags.OUTPUT)):
        if not flag.value:
            raise UserError(f"{name}: expected it; for instance --data=unlabelled.npz --output=pseudo.npz.")
    if absl.flags.FLAGS.gin_file or absl.flags.FLAGS.gin_bindings:
        raise UserError("--gin_file, --gin_bindings: expected neither; a network says how it is called.")
    output = local(_flags.OUTPUT.value)
    if output.suffix != ".npz":
        raise UserError(f"--output: expected a name that ends in .npz, received {str(output)!r}.")
    if output.exists():
        raise UserError(f"--output: {output} exists; choose another name or delete it.")
    return output


def _network() -> tuple[Classifier, Sequence[str]]:
    """A network, and the names of its classes where a run knows them."""
    _cli.own_parts()  # layers of a person's own, without which a file of theirs cannot be read
    if not _flags.WORKDIR.value:
        return load(str(local(_flags.NETWORK.value or ""))), ()
    path = local(_flags.WORKDIR.value)
    read_run(path, finished=False)
    _, file = _flags.one_network(path, "label with")
    names = trained_on(path).get("class names", ())
    return load(str(file)), names if isinstance(names, list) else ()


def _digest(images: np.ndarray) -> str:
    total = hashlib.sha256(f"{images.dtype} {images.shape}".encode())
    total.update(np.ascontiguousarray(images).data)
    return total.hexdigest()


def _fingerprint(origin: Mapping[str, object], batch_size: int) -> dict[str, str]:
    """What unfinished work must agree in to end with the same bytes."""
    names = {"network": "network digest", "images": "images digest", "software": "software"}
    return {**{name: json.dumps(origin[key]) for name, key in names.items()}, "batch size": str(batch_size)}


def _write(output: pathlib.Path, images: np.ndarray, found: Labels, origin: Mapping[str, object]) -> str:
    """Writes what is likely enough; returns a line about it."""
    kept = np.flatnonzero(found.confidence >= _LEAST.value)
    if not len(kept):
        raise UserError(
            f"--min_confidence: expected at most {np.floor(1e4 * found.confidence.max()) / 1e4}, the most that the "
            f"network is sure of an image, received {_LEAST.value}; the same command goes on with a lower one."
        )
    labels = found.label[kept]
    made = np.array(json.dumps(origin))
    npz.write(output, {"image": npz.Chosen(images, kept), "label": labels, PROVENANCE: made})
    counts = np.bincount(labels, minlength=int(str(origin["classes"])))
    return (
        f"written to {output}: {len(kept):,} of {len(images):,} images, {counts.min():,} to {counts.max():,} of a "
        f"class, confidence {found.confidence[kept].mean():.3f} on average"
    )


if __name__ == "__main__":
    _main.main(run)
