"""Exports a trained network for TF Serving, or as ONNX, with its robustness card.

    python -m pipelines.export --workdir=runs/x
    python -m pipelines.export --network=model.keras --data=cifar10 --model=mine
    python -m pipelines.export --workdir=runs/x --format=onnx

The first writes serving/<model>/<version>/ from best.keras of a finished run, with the card of
runs/x/evaluation where there is one. What was written is read back in a fresh process and compared with
the network before it gets its name; an existing version is never overwritten.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import absl.flags
import numpy as np

from awp_tf.checks import UserError
from awp_tf.data.named import named
from awp_tf.data.sources import Split, spread
from awp_tf.export import Export, Product, export, export_onnx, read_card
from awp_tf.robustness import load
from pipelines import _cli, _flags

absl.flags.adopt_module_key_flags(_flags)  # so that --help shows them
absl.flags.adopt_module_key_flags(_cli)
_MODEL = absl.flags.DEFINE_string("model", None, "The name it is served under; by default that of the run or file.")
_VERSION = absl.flags.DEFINE_string("version", None, "A whole number; by default the next free one.")
_KEEP = absl.flags.DEFINE_integer("keep", None, "Delete all but so many versions, the newest; by default none.")
_FORMAT = absl.flags.DEFINE_enum("format", "savedmodel", ["savedmodel", "onnx"], "For TF Serving, or an .onnx file.")
_EVALUATION = absl.flags.DEFINE_string(
    "evaluation", None, "The network's evaluation.json; by default <workdir>/evaluation's, where there is one."
)
_FLOATS = absl.flags.DEFINE_bool("serving_float", None, "Also a signature for floats in [0, 1].")
_IMAGES = 64  # real images for the comparison and for warm-up


def run(argv: Sequence[str]) -> None:
    """Exports and says where and how to serve it."""
    for flag in (_flags.THREAT, _flags.EXAMPLES, _flags.BATCH, _flags.SEED):
        if flag.present:
            raise UserError(f"--{flag.name}: plays no part in an export.")
    settings, product = _of_run() if _flags.WORKDIR.value else _of_network()
    given = {"keep": _KEEP.value, "floats": _FLOATS.value}
    settings = dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})
    base = _flags.OUTPUT.value or "serving"
    if _FORMAT.value == "onnx":
        print(f"written: {export_onnx(product, base)}")
        return
    folder = export(product, settings, base, version=_version())
    rated = (
        "with its robustness card" if product.card else "not evaluated; pipelines.evaluate would say how robust it is"
    )
    print(f"written: {folder} ({rated})")
    print(f"serve it: tensorflow_model_server --model_name={product.model} --model_base_path={folder.parent.resolve()}")
    print("from outside: docs/serving.md")


def _of_run() -> tuple[Export, Product]:
    """The best network of a finished run (or another of its networks, with --network)."""
    if _flags.DATA.value:
        raise UserError("--data: expected it with --network only; a run has its own.")
    path = _flags.finished_run(_flags.WORKDIR.value)
    network = pathlib.Path(_flags.NETWORK.value or path / "best.keras")
    flags = absl.flags.FLAGS
    _cli.parse([str(path / "config.gin"), *flags.gin_file], flags.gin_bindings)
    settings = _cli.call(Export)
    source = _cli.call(_cli.experiment.Data).source()
    evaluation = path / "evaluation" / "evaluation.json"
    product = Product(
        _MODEL.value or _plain(path.resolve().name),
        network,
        _pixels(source.test),
        source.class_names,
        _card(network, evaluation if evaluation.is_file() and not _flags.NETWORK.value else None),
    )
    return settings, product


def _of_network() -> tuple[Export, Product]:
    """Any network, with images to try it on."""
    if not _flags.NETWORK.value or not _flags.DATA.value:
        raise UserError(
            "expected --workdir of a finished run, or --network=model.keras with --data (images to try it on)."
        )
    if absl.flags.FLAGS.gin_file or absl.flags.FLAGS.gin_bindings:
        raise UserError("--gin_file, --gin_bindings: expected them with --workdir only.")
    network = pathlib.Path(_flags.NETWORK.value)
    if network.suffix != ".keras":
        raise UserError(f"--network: expected a .keras file to export, received {_flags.NETWORK.value!r}.")
    found = named(_flags.DATA.value, ("test",), load(str(network)).shape)
    images = _pixels(found.splits["test"])
    return Export(), Product(
        _MODEL.value or _plain(network.stem), network, images, found.class_names, _card(network, None)
    )


def _card(network: pathlib.Path, found: pathlib.Path | None) -> dict[str, object] | None:
    path = pathlib.Path(_EVALUATION.value) if _EVALUATION.value else found
    return read_card(path, network) if path else None


def _pixels(split: Split) -> np.ndarray:
    images = spread(split, _IMAGES).images
    return images if images.dtype == np.uint8 else np.round(images * 255).astype(np.uint8)


def _version() -> int | None:
    if _VERSION.value is None:
        return None
    if not _VERSION.value.isdecimal() or int(_VERSION.value) < 1:
        raise UserError(f"--version: expected a whole number >= 1, received {_VERSION.value!r}.")
    return int(_VERSION.value)


def _plain(name: str) -> str:
    """A name that servers and shells take as it is."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


if __name__ == "__main__":
    _cli.main(run)
