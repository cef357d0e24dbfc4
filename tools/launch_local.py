"""Starts several workers of one command on this machine, as a scheduler does on several.

    python -m tools.launch_local --workers=2 -- -m pipelines.train --gin_file=gin/trades_awp.gin

Behind -- stands what Python is called with. The workers share out the GPUs of this machine. Each gets its place by the
variable TF_CONFIG, on ports of the loopback device, and each line that it prints begins with its number. A signal is
passed on to all. Where a worker was stopped or lost (exit codes 75, 130, 143, or killed), the others are waited for,
and all begin again, at most --restarts times. The exit code is that of the first worker that failed.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import absl.app
import absl.flags
import tensorflow as tf

from awp_tf.infra.errors import UserError
from awp_tf.infra.signals import Interrupt
from awp_tf.study.worker import shares_of_gpus

_WORKERS = absl.flags.DEFINE_integer("workers", 2, "How many.", lower_bound=1)
_RESTARTS = absl.flags.DEFINE_integer("restarts", 0, "How often all begin again after one was lost.", lower_bound=0)
_GRACE = absl.flags.DEFINE_float("grace", 60.0, "Seconds that the others have to end after one did not end well.")

RESTART = (75, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def run(argv: Sequence[str]) -> None:
    """Starts, waits, and starts again."""
    command = argv[1:]
    if not command:
        print("error: expected a command behind --, such as -- -m pipelines.train, received none.", file=sys.stderr)
        sys.exit(2)
    try:
        with Interrupt() as interrupt:
            sys.exit(_run_all(command, interrupt))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run_all(command: Sequence[str], interrupt: Interrupt) -> int:
    for attempt in range(_RESTARTS.value + 1):
        code = once(command, _WORKERS.value, interrupt, _GRACE.value)
        again = code < 0 or code in RESTART
        if not again or interrupt.signum or attempt == _RESTARTS.value:
            break
        print(f"a worker ended with exit code {code}; all begin again", flush=True)
    return code if code >= 0 else 128 - code


def once(command: Sequence[str], workers: int, interrupt: Interrupt, grace: float) -> int:
    """Runs the workers to their end.

    Args:
        command: What Python is called with.
        workers: How many.
        interrupt: Whose signal is passed on.
        grace: Seconds that the others have to end after one failed; then they are killed.

    Returns:
        0, or the exit code of the first worker that failed, -9 for one that was killed.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    gpus = shares(workers, len(tf.config.list_physical_devices("GPU")))
    processes = [_start(command, addresses, index, gpus[index]) for index in range(workers)]
    readers = [threading.Thread(target=_print, args=(i, process)) for i, process in enumerate(processes)]
    for reader in readers:
        reader.start()
    failed, passed, deadline = 0, False, float("inf")
    while any(process.poll() is None for process in processes):
        if interrupt.signum and not passed:
            passed = True
            _signal_all(processes, interrupt.signum)
        codes = [process.poll() for process in processes]
        if not failed and any(codes):
            failed = next(code for code in codes if code)
            deadline = time.monotonic() + grace
        if time.monotonic() > deadline:
            _signal_all(processes, signal.SIGKILL)
        time.sleep(0.1)
    for reader in readers:
        reader.join()
    return failed or next((process.returncode for process in processes if process.returncode), 0)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as opened:
        doors = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(door.getsockname()[1]) for door in doors]


def shares(workers: int, count: int) -> list[dict[str, str]]:
    """What tells workers which GPUs are theirs, as many for each; with fewer GPUs than workers, all take the CPU."""
    if 0 < count < workers:
        return [{"CUDA_VISIBLE_DEVICES": "-1"}] * workers
    return shares_of_gpus(workers, count // workers * workers)


def _start(
    command: Sequence[str], addresses: Sequence[str], index: int, gpus: Mapping[str, str]
) -> subprocess.Popen[str]:
    place = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **gpus, "TF_CONFIG": json.dumps(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a signal of the terminal comes once, by us
    )


def _print(index: int, process: subprocess.Popen[str]) -> None:
    for line in process.stdout or ():
        print(f"[{index}] {line}", end="", flush=True)


def _signal_all(processes: Sequence[subprocess.Popen[str]], signum: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signum)


if __name__ == "__main__":
    absl.app.run(run)
