"""Runs the commands of a study as processes of their own."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from awp_tf.infra import cpu
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.infra.signals import Interrupt, Interrupted


class Worker:
    """Carries out one run at a time, on cores and GPUs of its own."""

    def __init__(
        self, runs: pathlib.Path, interrupt: Interrupt, cores: Sequence[int], environment: Mapping[str, str] = {}
    ) -> None:
        """Nothing starts yet.

        Args:
            runs: Where run folders go.
            interrupt: Asked every second whether to stop.
            cores: Which CPU cores its processes may use.
            environment: What else they are told: see shares_of_gpus.
        """
        self._runs, self._interrupt, self._cores, self._environment = runs, interrupt, cores, environment

    def run(self, name: str, commands: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """Starts commands one after the other; returns seconds by command, of interrupted attempts too.

        Args:
            name: Of the run; its log is <runs>/<name>.log.
            commands: What Python is called with, by name.

        Raises:
            UserError: A command failed; its log says why.
            Interrupted: A signal came; it was passed on, and the commands have saved their state.
        """
        file = self._runs / f"{name}.seconds.json"
        for command, arguments in commands.items():
            with _add_time(file, command):
                self._start(arguments, self._runs / f"{name}.log")
        return _seconds_in(file)

    def _start(self, command: Sequence[str], log: pathlib.Path) -> None:
        with log.open("a", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self._environment},
            )
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, self._cores)
            try:
                while process.poll() is None:
                    self._interrupt.check()
                    time.sleep(1)
            except Interrupted as stop:
                process.send_signal(stop.signum)
                process.wait()
                raise
        if process.returncode:
            raise UserError(f"{' '.join(command)}: failed with exit code {process.returncode}; see {log}.")


def _seconds_in(file: pathlib.Path) -> dict[str, float]:
    """What was measured before; nothing where a damaged disk lost it: it is time only."""
    try:
        found: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError:
        return {}
    return found


@contextlib.contextmanager
def _add_time(file: pathlib.Path, name: str) -> Iterator[None]:
    """Adds the time that passes to what the file says of name, whatever happens."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = _seconds_in(file)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        write_text(file, json.dumps(seconds))


def shares_of_cores(jobs: int) -> list[list[int]]:
    """The CPU cores of this process, in as many equal parts.

    Raises:
        UserError: There are not so many.
    """
    cores = cpu.cores()
    if jobs > len(cores):
        raise UserError(f"jobs: expected at most the {len(cores)} CPU cores of this machine, received {jobs}.")
    return [cores[index::jobs] for index in range(jobs)]


def shares_of_gpus(jobs: int, count: int) -> list[dict[str, str]]:
    """What tells the processes of each job which GPUs are theirs; jobs that are more than there are share them.

    Args:
        jobs: At a time.
        count: How many GPUs there are.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    ids = listed.split(",")[:count]
    own = [ids[index::jobs] or ids[index % count :][:1] for index in range(jobs)] if ids and count else []
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in own] or [{}] * jobs
