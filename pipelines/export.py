"""Exports a trained network for TF Serving, or as ONNX, with its robustness card.

    python -m pipelines.export --workdir=runs/x
    python -m pipelines.export --network=model.keras --data=cifar10 --model=mine
    python -m pipelines.export --workdir=runs/x --format=onnx

The first writes serving/<model>/<version>/ from best.keras of a finished run (last.keras where it keeps no best), with
the card of its evaluation where there is one, and a signature for each task that has classes of its own. What was
written is read back in a fresh process and compared with the network before it gets its name; an existing version is
never overwritten.
"""

import pathlib
from collections.abc import Sequence

import absl.flags
import numpy as np

from awp_tf.data.batches import spread
from awp_tf.data.by_name import data_set
from awp_tf.data.splits import Split
from awp_tf.export.export import export, read_card
from awp_tf.export.heads import read_heads
from awp_tf.export.onnx import export_onnx
from awp_tf.export.settings import Export, Servable
from awp_tf.infra.devices import use_gpus
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import local
from awp_tf.infra.run_folder import HEADS
from awp_tf.networks.classifier import load

from . import _cli, _flags, _main

absl.flags.adopt_module_key_flags(_flags)  # so that --help shows them
absl.flags.adopt_module_key_flags(_cli)
_MODEL = absl.flags.DEFINE_string("model", None, "The name it is served under; by default that of the run or file.")
_VERSION = absl.flags.DEFINE_string("version", None, "A whole number; by default the next free one.")
_KEEP = absl.flags.DEFINE_integer(
    "keep", None, "How many of the newest versions stay; older ones are deleted. By default all stay."
)
_FORMAT = absl.flags.DEFINE_enum("format", "savedmodel", ["savedmodel", "onnx"], "For TF Serving, or an .onnx file.")
_EVALUATION = absl.flags.DEFINE_string(
    "evaluation", None, "The network's evaluation.json; by default <workdir>/evaluation's, where there is one."
)
_FLOATS = absl.flags.DEFINE_bool("serving_float", None, "Also a signature for floats in [0, 1].")
_IMAGES = 64  # real images for the comparison and for warm-up


def run(argv: Sequence[str]) -> None:
    """Exports and says where and how to serve it."""
    _flags.refuse("plays no part in an export", "threat", "max_examples", "batch_size", "seed")
    use_gpus(1)
    settings, servable = _of_run(_flags.WORKDIR.value) if _flags.WORKDIR.value else _of_network()
    settings = _flags.changed(settings, keep=_KEEP.value, floats=_FLOATS.value)
    base = str(local(_flags.OUTPUT.value or "serving"))
    if _FORMAT.value == "onnx":
        _flags.refuse("plays no part in an .onnx file", "version", "keep", "serving_float")
        print(f"written: {export_onnx(servable, base)}")
        return
    folder = export(servable, settings, base, version=_version())
    rated = (
        "with its robustness card" if servable.card else "not evaluated; pipelines.evaluate would say how robust it is"
    )
    print(f"written: {folder} ({rated})")
    if servable.heads:
        print(f"signatures of tasks: {', '.join(head.signature for head in servable.heads)}")
    print(
        f"serve it: tensorflow_model_server --model_name={servable.model} --model_base_path={folder.parent.resolve()}"
    )
    print("from outside: docs/serving.md")


def _of_run(folder: str) -> tuple[Export, Servable]:
    """A network of a run: the best one, or the last where there is no best, unless --network says otherwise."""
    run = _flags.run(folder)
    name, file = _flags.one_network(run.path, "export")
    evaluation = _flags.evaluation_folder(run.path, name) / "evaluation.json"
    return _cli.call(Export), Servable(
        _MODEL.value or _flags.plain(run.path.resolve().name),
        file,
        _pixels(run.source.test),
        run.source.class_names,
        _card(file, evaluation if evaluation.is_file() else None),
        read_heads(run.path / HEADS),
    )


def _of_network() -> tuple[Export, Servable]:
    """Any network, with images to try it on."""
    _flags.require_alone()
    network = local(_flags.NETWORK.value)
    if network.suffix != ".keras":
        raise UserError(f"--network: expected a .keras file to export, received {_flags.NETWORK.value!r}.")
    found = data_set(_flags.DATA.value, ("test",), load(str(network)).shape)
    images = _pixels(found.splits["test"])
    return Export(), Servable(
        _MODEL.value or _flags.plain(network.stem), network, images, found.class_names, _card(network, None)
    )


def _card(network: pathlib.Path, found: pathlib.Path | None) -> dict[str, object] | None:
    path = local(_EVALUATION.value) if _EVALUATION.value else found
    return read_card(path, network) if path else None


def _pixels(split: Split) -> np.ndarray:
    images = np.asarray(spread(split, _IMAGES).images)
    return images if images.dtype == np.uint8 else np.round(images * 255).astype(np.uint8)


def _version() -> int | None:
    if _VERSION.value is None:
        return None
    if not _VERSION.value.isdecimal() or int(_VERSION.value) < 1:
        raise UserError(f"--version: expected a whole number >= 1, received {_VERSION.value!r}.")
    return int(_VERSION.value)


def main() -> None:
    """The command itself."""
    _main.main(run)


if __name__ == "__main__":
    main()
