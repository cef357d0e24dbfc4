"""Text: is training at perturbed weights worth it for a small transformer?

    python examples/text.py [--seeds=3] [--epochs=8] [--all]

Which of five packages does a sentence of a docstring come from? The text is that of the installed numpy, scipy,
scikit-learn, keras and Python's standard library; their own names are struck out. Prints a table: test accuracy of
plain training, random perturbations, AWP, SAM and ASAM, AWP on the word embeddings alone and FGSM on them (as in
adversarial training of text classifiers: Miyato et al., ICLR 2017), and the differences to plain training with as many
gradients and with as many epochs.
"""

import ast
import functools
import importlib.util
import pathlib
import re
import sysconfig
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

import compare
from awp_tf.attacks import FGSM
from awp_tf.perturbations import AWP, Identity
from awp_tf.threats import L2

PACKAGES = ("numpy", "scipy", "sklearn", "keras", "standard library")
GIVEN_AWAY = {"numpy", "np", "scipy", "sklearn", "scikit", "keras", "tf", "tensorflow", "python"}
FILES, DOCSTRINGS = 300, 700  # of each package, at most
SIZES, SENTENCES = (800, 1000), 1000  # docstrings to train and to choose on, of all packages; sentences to train on
WORDS, LENGTH, WIDTH = 1500, 16, 32  # in all, in a sentence; of their vectors


def docstrings(package: str) -> Iterator[str]:
    """Of modules, classes and functions, read without importing anything, file by file in a fixed random order."""
    spec = importlib.util.find_spec(package) if package in PACKAGES[:-1] else None
    folder = pathlib.Path(spec.origin).parent if spec and spec.origin else pathlib.Path(sysconfig.get_path("stdlib"))
    files = [f for f in folder.rglob("*.py") if not {"tests", "test", "site-packages"} & {*f.relative_to(folder).parts}]
    files.sort(key=str)
    for index in np.random.default_rng(0).permutation(len(files))[:FILES]:
        for node in ast.walk(ast.parse(files[index].read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def sentences(docstring: str) -> Iterator[str]:
    """Words in small letters, from the prose before the first heading, example or list of arguments."""
    prose = re.split(r"\n *(?:\S[^\n]*\n *[-=~]{3}|>>>|\.\. |\w+:\n|```)", docstring)[0]
    for sentence in re.split(r"(?<=[.!?])\s+|\n\n", prose):
        words = [w for w in re.findall(r"[a-z]+", sentence.lower()) if w not in GIVEN_AWAY]
        if len(words) >= 5:
            yield " ".join(words)


@functools.cache
def corpus() -> list[tuple[int, list[str]]]:
    """(Package, sentences) of every docstring; a sentence counts where it is met first."""
    seen: set[str] = set()
    found = []
    for label, package in enumerate(PACKAGES):
        mine = []
        for docstring in docstrings(package):
            new = [s for s in dict.fromkeys(sentences(docstring)) if s not in seen]
            seen.update(new)
            mine += [(label, new)] if new else []
            if len(mine) == DOCSTRINGS:
                break
        found += mine
    return found


def data(seed: int) -> compare.Data:
    """Sentences as the numbers of their words; those of one docstring are in one part."""
    of = corpus()
    order = np.random.default_rng(seed).permutation(len(of))
    parts = [[(s, of[i][0]) for i in rows for s in of[i][1]] for rows in np.split(order, np.cumsum(SIZES))]
    parts[0] = parts[0][:SENTENCES]  # as many steps with every seed
    coding = layers.TextVectorization(WORDS, output_sequence_length=LENGTH)
    coding.adapt([s for s, _ in parts[0]])
    coded = [(np.array(coding([s for s, _ in part])), np.array([y for _, y in part])) for part in parts]
    return compare.Data(*(compare.Part(*part) for part in coded))


class Positions(layers.Layer):
    """Adds a learned vector to each place of a sentence."""

    def build(self, shape: tuple[int, ...]) -> None:
        """See keras.layers.Layer."""
        self.table = self.add_weight(shape=shape[1:], initializer="uniform", name="table")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """[B, L, D] to the same."""
        return x + self.table


def transformer() -> keras.Model:
    """One block of two heads, the mean over the sentence, a class."""
    words = keras.Input([LENGTH], dtype="int32")
    x = Positions()(layers.Embedding(WORDS, WIDTH, name="words")(words))
    attended = layers.MultiHeadAttention(num_heads=2, key_dim=WIDTH // 2)(x, x)
    x = layers.LayerNormalization()(x + attended)
    x = layers.LayerNormalization()(x + layers.Dense(WIDTH)(layers.Dense(2 * WIDTH, activation="gelu")(x)))
    return keras.Model(words, layers.Dense(len(PACKAGES))(layers.GlobalAveragePooling1D()(x)))


TASK = compare.Task(
    title=f"Which package does a sentence come from? {SENTENCES:,} training sentences, {len(PACKAGES)} packages",
    data=data,
    network=transformer,
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    epochs=8,
    batch_size=64,
)


def methods() -> dict[str, compare.Method]:
    """Those of every example, and two of NLP."""
    embeddings = {"where": "embeddings"}
    awp = [compare.Try(f"gamma {g}", AWP(g), embeddings) for g in compare.GAMMAS]
    fgsm = [
        compare.Try(f"epsilon {e}", Identity(), {"attack": FGSM(L2(e), box=None), "on": "words"})
        for e in (0.004, 0.02, 0.1)
    ]
    return {
        **compare.methods(),
        "AWP, embeddings": compare.Method(2, awp),
        "FGSM, embeddings": compare.Method(2, fgsm),
    }


if __name__ == "__main__":
    compare.main(__doc__, [TASK], methods(), seeds=3, more=["random", "FGSM, embeddings"])
