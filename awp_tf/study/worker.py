"""Runs the commands of a trial as processes of their own."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from awp_tf.infra import cpu
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.infra.signals import Interrupt, Interrupted
from awp_tf.study.plan import Trial


class Worker:
    """Trains one run at a time, on cores of its own."""

    def __init__(self, runs: pathlib.Path, interrupt: Interrupt, cores: Sequence[int]) -> None:
        """Nothing starts yet.

        Args:
            runs: Where run folders go.
            interrupt: Asked every second whether to stop.
            cores: Which CPU cores its processes may use.
        """
        self._runs, self._interrupt, self._cores = runs, interrupt, cores

    def carry_out(self, trial: Trial, checkpoints: str) -> tuple[pathlib.Path, dict[str, float]]:
        """(Folder of the run, seconds by command) once training and landscape are finished.

        Seconds of interrupted attempts are counted.

        Raises:
            UserError: A command failed; its log says why.
            Interrupted: A signal came; it was passed on, and the commands have saved their state.
        """
        folder = self._runs / trial.name
        spent = folder.with_name(f"{folder.name}.seconds.json")
        for name, command in commands(trial, folder, checkpoints).items():
            with _added(spent, name):
                self._run(command, folder.with_name(f"{folder.name}.log"))
        return folder, json.loads(spent.read_text(encoding="utf-8"))

    def _run(self, command: Sequence[str], log: pathlib.Path) -> None:
        with log.open("a", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
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


def commands(trial: Trial, folder: pathlib.Path, checkpoints: str) -> dict[str, list[str]]:
    """What Python is called with, by name."""
    return {
        "train": ["-m", "pipelines.train", *trial.flags, f"--workdir={folder}"],
        "landscape": [
            *("-m", "pipelines.landscape", f"--workdir={folder}", f"--network={checkpoints}"),
            f"--output={folder / 'landscape'}",
        ],
    }


@contextlib.contextmanager
def _added(file: pathlib.Path, name: str) -> Iterator[None]:
    """Adds the time that passes to what the file says of name, whatever happens."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        write_text(file, json.dumps(seconds))


def shares_of_cores(jobs: int) -> list[list[int]]:
    """The CPU cores of this process, in as many equal parts.

    Raises:
        UserError: There are not so many.
    """
    cores = cpu.cores()
    if jobs > len(cores):
        raise UserError(f"--jobs: expected at most the {len(cores)} CPU cores of this machine, received {jobs}.")
    return [cores[index::jobs] for index in range(jobs)]
