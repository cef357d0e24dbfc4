"""With what a number was made."""

import functools
import pathlib
import platform
import subprocess

import keras
import numpy as np
import tensorflow as tf

import awp_tf


def versions() -> dict[str, str]:
    """Of everything that could change a number."""
    return {
        "awp_tf": awp_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


@functools.cache
def commit() -> str | None:
    """The commit of this code, marked where files were changed since; None outside a git checkout."""
    git = ["git", "-C", str(pathlib.Path(awp_tf.__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
