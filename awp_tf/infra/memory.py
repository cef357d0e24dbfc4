"""How much memory this process may use."""

import os
import pathlib

from awp_tf.infra.errors import positive

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroup v2, v1
GIB = 2**30


def machine() -> int:
    """Bytes of the machine, or of the container where that has less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(pathlib.Path, _LIMITS):
        text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        found += [int(text)] if text.isdigit() else []
    return min(found)


def default_room() -> int:
    """Bytes that the images of a split may take unless a setting says more: a quarter of what there is."""
    return machine() // 4


def room(name: str, gib: float | None) -> int:
    """Bytes of so many GiB; None is a quarter of what there is.

    Raises:
        UserError: gib is no number above 0; the setting's name is said.
    """
    if gib is None:
        return default_room()
    positive(name, gib)
    return int(gib * GIB)
