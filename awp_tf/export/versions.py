"""Version folders as TF Serving reads them: <base>/<model>/<whole number>/, there whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from awp_tf.infra.errors import UserError, at_least
from awp_tf.training.run import locked

_STAGING = ".staging"  # a server looks at names that are numbers only


def versions(model: pathlib.Path) -> list[int]:
    """The versions that are there, rising."""
    return sorted(int(path.name) for path in model.iterdir() if path.name.isdigit()) if model.is_dir() else []


@contextlib.contextmanager
def staged(model: pathlib.Path, version: int | None, keep: int | None) -> Iterator[tuple[pathlib.Path, int]]:
    """Gives a folder to write to and its version number; on leaving without error it gets that name at once.

    Args:
        model: <base>/<model>.
        version: Its number; None is the next free one.
        keep: How many versions stay, the newest; None keeps all.

    Raises:
        UserError: The version is there already, or the folder cannot be written.
    """
    check_version(model, version)
    if keep is not None:
        at_least("--keep", keep, 1)
    fresh = not model.exists()
    with locked(model):
        try:
            number = max(versions(model), default=0) + 1 if version is None else version
            folder = model / _STAGING
            shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
            folder.mkdir()
            try:
                yield folder, number
                os.rename(folder, model / str(number))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException:
            if fresh and not versions(model):
                shutil.rmtree(model, ignore_errors=True)  # nothing stays of a first export that failed
            raise
        for old in versions(model)[: -keep if keep else 0]:
            if old != number:
                shutil.rmtree(model / str(old))


def check_version(model: pathlib.Path, version: int | None) -> None:
    """Raises UserError unless version is None, or a whole number >= 1 that is not there yet."""
    if version is None:
        return
    at_least("--version", version, 1)
    if (model / str(version)).exists():
        raise UserError(f"--version: {model / str(version)} is there already and is not overwritten; choose another.")
