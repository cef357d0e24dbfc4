"""Steps taken in processes of their own, one at a time: what is compared shares neither memory nor threads.

A child prints one line of JSON when it is ready, and one for every line that it reads, after a step.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from awp_tf.infra import memory
from awp_tf.infra.errors import UserError

Facts = dict[str, Any]
_ROOT = pathlib.Path(__file__).resolve().parents[2]


class Apart:
    """A child that takes a step whenever it is asked to.

    Attributes:
        ready: What it said once it was ready: its start-up in seconds, for instance.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        """Starts `python -m program arguments` and waits until it is ready.

        Args:
            program: A module; or a .py file, of which nothing is imported but what it names itself.
            arguments: Of its command line.

        Raises:
            UserError: The child says so, or ended.
        """
        self._name = program
        self._process = subprocess.Popen(
            [sys.executable, *([] if program.endswith(".py") else ["-m"]), program, *arguments],
            env={**os.environ, "PYTHONPATH": str(_ROOT), "AWP_TF_STARTED": str(time.time())},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.ready = self._said()
        except BaseException:
            self.__exit__()
            raise

    def __call__(self) -> Facts:
        """Takes a step: what the child says of it, with "seconds" and "peak", the most GiB that it had by then.

        Raises:
            UserError: The child ended.
        """
        print(file=self._process.stdin, flush=True)
        return self._said()

    def _said(self) -> Facts:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise UserError(f"{self._name}: its process ended without an answer (exit code {self._process.wait()}).")
        facts: Facts = json.loads(line)
        if "error" in facts:
            raise UserError(facts["error"])
        return facts

    def __enter__(self) -> Self:
        """Ends with the context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the child."""
        self._process.kill()
        self._process.communicate()


def serve(prepare: Callable[[Sequence[str]], tuple[Callable[[], Facts], Facts]], arguments: Sequence[str]) -> None:
    """The child's side.

    Args:
        prepare: Takes the arguments; makes a step, which may return facts ("peak", too: that of a GPU), and what to say
            once it is ready.
        arguments: Of the command line.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is not an answer
    try:
        step, facts = prepare(arguments)
    except UserError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return
    print(json.dumps(facts), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        facts = step()
        facts = {"seconds": time.perf_counter() - start, "peak": memory.peak() / memory.GIB, **facts}
        print(json.dumps(facts), file=answers, flush=True)


def since_start() -> float:
    """Seconds since the child was started."""
    return time.time() - float(os.environ.get("AWP_TF_STARTED", time.time()))


def in_turns(children: dict[str, Apart], runs: int) -> dict[str, list[Facts]]:
    """What each child says of its steps, taken one after the other, so that a busy machine slows all alike."""
    facts: dict[str, list[Facts]] = {name: [] for name in children}
    for _ in range(runs):
        for name, child in children.items():
            facts[name].append(child())
    return facts
