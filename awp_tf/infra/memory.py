"""How much memory this process may use."""

import os
import pathlib
import re
from collections.abc import Iterator

from awp_tf.infra.errors import positive

_ROOT = pathlib.Path("/")
GIB = 2**30


def machine(root: pathlib.Path = _ROOT) -> int:
    """Bytes of the machine, or of the container or the job (SLURM, systemd) where that may have less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _limits(root):
        text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        found += [int(text)] if text.isdigit() else []
    return min(found)


def _limits(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files that limit this process's control group and those that it is in: cgroup v2, and v1."""
    groups, mounted = root / "proc/self/cgroup", root / "sys/fs/cgroup"
    lines = groups.read_text(encoding="utf-8").splitlines() if groups.is_file() else []
    for line in ["0::/", "0:memory:/", *lines]:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            group = pathlib.PurePosixPath(path.lstrip("/"))
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            yield from (mounted / controllers / parent / name for parent in (group, *group.parents))


def peak(process: int | str = "self") -> int:
    """Bytes that a process has had in memory at most; 0 where that is not known: it is gone, or this is no Linux.

    Not by getrusage: there a process begins with the peak of the one that started it.
    """
    status = _ROOT / "proc" / str(process) / "status"
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


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
