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
    """The newest commit that changed this code, marked where files were changed since; None outside a git checkout."""
    try:
        newest = _git("log", "-1", "--pretty=%H")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{newest}-dirty" if newest and changed else newest or None


def _git(*arguments: str) -> str:
    """What git says of the code; documents and records may change without changing a number."""
    line = ["git", *arguments, "--", "awp_tf", "pipelines", "tools", "gin"]
    root = pathlib.Path(awp_tf.__file__).parent.parent
    return subprocess.run(line, cwd=root, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
