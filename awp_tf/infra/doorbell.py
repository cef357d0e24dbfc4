"""Whether all machines of a cluster are there, and about to do the same: asked before TensorFlow waits for them.

TensorFlow's runtime waits for absent workers without end and without a word, and no signal reaches Python meanwhile. So
the workers first ring at the chief's door, each with what it is about to do, and hear whether they begin.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from awp_tf.infra.cluster import Cluster
from awp_tf.infra.errors import UserError, first_difference, first_line

_LONGEST = 2**16  # bytes of a message
_ANSWER_SECONDS = 10.0


def ring(cluster: Cluster, task: str, seconds: float) -> None:
    """Returns once all workers of a cluster are there, to do the same task.

    Args:
        cluster: Of several workers.
        task: What this one is about to do; a line of it that differs is shown.
        seconds: How long to wait for the others.

    Raises:
        UserError: Some are absent, the chief's port is taken, or a worker has another task; on all that are there.
    """
    said = {"index": cluster.index, "workers": list(cluster.workers), "task": task}
    deadline = time.monotonic() + seconds
    if cluster.index:
        _ask(cluster, said, deadline, seconds)
    else:
        _answer(cluster, said, deadline, seconds)


def _ask(cluster: Cluster, said: Mapping[str, object], deadline: float, seconds: float) -> None:
    host, _, port = cluster.workers[0].rpartition(":")
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=1) as line:
                line.settimeout(max(1.0, deadline - time.monotonic()) + _ANSWER_SECONDS)
                _send(line, said)
                answer = _receive(line)
            break
        except (OSError, ValueError, TypeError):  # nobody there yet, or somebody else
            if time.monotonic() > deadline:
                raise UserError(
                    f"cluster: worker 0 ({cluster.workers[0]}) did not answer within {seconds:g} s; start all workers."
                ) from None
            time.sleep(0.2)
    if answer.get("error"):
        raise UserError(str(answer["error"]))


def _answer(cluster: Cluster, said: Mapping[str, object], deadline: float, seconds: float) -> None:
    with contextlib.ExitStack() as opened:
        door = opened.enter_context(_door(cluster.workers[0]))
        lines: dict[int, socket.socket] = {}
        wrong = ""
        while len(lines) < len(cluster.workers) - 1 and not wrong and time.monotonic() < deadline:
            door.settimeout(max(0.1, min(1.0, deadline - time.monotonic())))
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # nobody, or somebody else
                line = opened.enter_context(door.accept()[0])
                line.settimeout(_ANSWER_SECONDS)
                theirs = _receive(line)
                lines[int(theirs["index"])] = line
                wrong = _difference(said, theirs)
        absent = [i for i in range(1, len(cluster.workers)) if i not in lines]
        if absent and not wrong:
            names = ", ".join(f"{i} ({cluster.workers[i]})" for i in absent)
            wrong = f"cluster: worker {names} did not come within {seconds:g} s; start all workers."
        for line in lines.values():
            with contextlib.suppress(OSError):
                _send(line, {"error": wrong})
    if wrong:
        raise UserError(wrong)


def _door(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server(("127.0.0.1" if host in ("127.0.0.1", "localhost") else "", int(port)))
    except OSError as error:
        raise UserError(
            f"cluster: expected to listen at {address}, which is worker 0's; {first_line(error)}."
        ) from error


def _difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """How another worker's message contradicts the chief's; empty where it does not."""
    if theirs["workers"] != mine["workers"]:
        return (
            f"cluster: expected the same workers everywhere, received {', '.join(theirs['workers'])} from worker "
            f"{theirs['index']} and {', '.join(mine['workers'])} from worker 0."
        )
    if theirs["task"] != mine["task"]:
        here, there = first_difference(mine["task"], theirs["task"])
        return (
            f"cluster: expected the same configuration on all workers, received on worker {theirs['index']}: "
            f"{there}; on worker 0: {here}."
        )
    return ""


def _send(line: socket.socket, message: Mapping[str, object]) -> None:
    line.sendall(json.dumps(message).encode() + b"\n")


def _receive(line: socket.socket) -> dict[str, Any]:
    """One line of JSON; ValueError where it is none."""
    with line.makefile("rb") as stream:
        found = json.loads(stream.readline(_LONGEST))
    if not isinstance(found, dict):
        raise TypeError
    return found
