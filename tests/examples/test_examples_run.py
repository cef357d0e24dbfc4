"""The examples as their first lines say, as short as they can be."""

import os
import pathlib
import subprocess
import sys

import pytest
import text

ROOT = pathlib.Path(__file__).parents[2]
ALL = ["plain", "plain, half the budget", "random", "AWP", "SAM", "ASAM"]
EXAMPLES = {
    "examples.tabular": [*ALL, "Wine", "Breast cancer", "Diabetes"],
    "examples.text": [*ALL, "AWP, embeddings", "FGSM, embeddings"],
    "examples.images": ALL,
}


# Each method with the first of its settings: all of them, some two hundred short runs, take minutes.
ONE_TRY = """
import runpy, sys
import compare
compared = compare.main
def main(about, tasks, tried, **settings):
    compared(about, tasks, {name: each._replace(tries=each.tries[:1]) for name, each in tried.items()}, **settings)
compare.main = main
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(example, *flags, python=()):
    return subprocess.run(
        [sys.executable, *python, example.replace(".", "/") + ".py", *flags],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/examples"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_prints_a_table_with_all_methods(example):
    done = start(example, "--seeds=2", "--epochs=1", "--all", python=("-c", ONE_TRY))
    assert done.returncode == 0, done.stderr[-2000:]
    for name in EXAMPLES[example]:
        assert f"\n| {name} " in done.stdout or f"{name}, " in done.stdout or f"{name} (" in done.stdout
    assert "runs, 2 seeds each" in done.stdout
    assert "100%" in done.stderr
    assert "nan" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--seed=2"], ["--seeds=1"], ["--epochs=0"], ["--seeds=two"]])
def test_a_wrong_flag_is_one_line(flags):
    done = start("examples.images", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert "images.py: " in done.stderr.splitlines()[-1]
    assert "usage" not in done.stderr


def test_sentences_are_prose_without_names_that_give_the_package_away():
    docstring = """Solve a linear system with numpy.

    Much like scipy.linalg, it
    factors the matrix first. Short one.

    Parameters
    ----------
    a : an array that should not be read
    """
    assert list(text.sentences(docstring)) == [
        "solve a linear system with",
        "much like linalg it factors the matrix first",
    ]


class Verbatim:
    """In place of TextVectorization: sentences as they are."""

    def __init__(self, words, output_sequence_length):
        self.adapted = None

    def adapt(self, sentences):
        self.adapted = set(sentences)

    def __call__(self, sentences):
        return sentences


def made_up(package):
    """Six docstrings of two sentences, and one that all packages share."""
    for i in range(6):
        here = f"sentence {'abcdef'[i]} of {'vwxyz'[text.PACKAGES.index(package)]} is"
        yield f"{here} one. {here} two.\n\nA sentence that all have."


def test_sentences_of_one_docstring_are_in_one_part_and_none_is_twice(monkeypatch):
    for name, value in {"SIZES": (8, 8), "SENTENCES": 12, "docstrings": made_up}.items():
        monkeypatch.setattr(text, name, value)
    monkeypatch.setattr(text.layers, "TextVectorization", Verbatim)
    text.corpus.cache_clear()
    try:
        parts = [list(part.x) for part in text.data(0)]
    finally:
        text.corpus.cache_clear()
    sentences = [s for part in parts for s in part if s != "a sentence that all have"]
    assert len(parts[0]) == 12
    assert len(sentences) == len(set(sentences)) >= 12 + 16 + 28 - 1
    assert sum(part.count("a sentence that all have") for part in parts) <= 1
    train, validation, test = ({s.rsplit(" ", 1)[0] for s in part} for part in parts)
    assert not train & validation
    assert not train & test
    assert not validation & test
