"""Commands as a person starts them, forked from a process that has imported TensorFlow already.

Importing it takes seconds, which every start would take again. What a command does, prints and answers is that of a
process of its own.
"""

import errno
import itertools
import multiprocessing
import os
import pathlib
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parent.parent


class Started:
    """A command that runs."""

    def __init__(self, server, folder, module, arguments, cwd, kill, env):
        self._module, self._out, self._err = module, folder / "out", folder / "err"
        request = (module, arguments, str(cwd or ROOT), kill, env, self._out, self._err)
        self._process = server.Process(target=execute, args=request, daemon=True)
        self._process.start()

    def until(self, condition):
        """Waits until condition() holds; fails where the command ends before."""
        while not condition():
            time.sleep(0.02)
            assert self._process.is_alive(), self.end()

    def printed(self):
        """What it has printed so far."""
        return self._out.read_text() if self._out.exists() else ""

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def end(self, timeout=300):
        """Waits for it: what subprocess.run gives."""
        self._process.join(timeout)
        assert not self._process.is_alive(), f"{self._module} runs after {timeout} s"
        said = self._out.read_text(), self._err.read_text()
        return subprocess.CompletedProcess(self._module, self._process.exitcode, *said)


class Commands:
    """Starts commands, whose output is kept in files of a folder; see the module."""

    def __init__(self, folder):
        self._folder = folder
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(["pipelines", "pipelines._cli", "awp_tf.training.train"])

    def start(self, module, *arguments, cwd=None, kill=None, **env):
        """Like python -m module.

        kill is (what, n): SIGKILL n "seconds" after the start, or at the n-th file that is "replaced", checkpoint that
        is "written" (in its middle), or batch that is "measured"; or, from the n-th file on, the disk is "full"; or no
        file finds more "room" than n bytes, so that it fails half-written.
        """
        folder = tempfile.mkdtemp(dir=self._folder)
        return Started(self._server, pathlib.Path(folder), module, arguments, cwd, kill, env)

    def run(self, module, *arguments, **settings):
        """Starts it and waits: what subprocess.run gives."""
        return self.start(module, *arguments, **settings).end()

    def train(self, *arguments, **settings):
        return self.run("pipelines.train", *arguments, **settings)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(what, n):
    """Sets the trap; see Commands.start."""
    import tensorflow as tf

    from awp_tf.evaluation.accuracy import Evaluator

    if what == "seconds":
        threading.Timer(n, die).start()
        return
    if what == "room":  # Python ignores SIGXFSZ: writing fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
        return
    places = {
        "replaced": (os, "replace"),
        "full": (os, "replace"),
        "written": (tf.train.Checkpoint, "write"),
        "measured": (Evaluator, "count"),
    }
    owner, name = places[what]
    original, calls = getattr(owner, name), itertools.count(1)

    def trap(*arguments, **settings):
        call = next(calls)
        if what == "full" and call >= n:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if what != "full" and call == n:
            if what == "written":
                threading.Timer(0.002, die).start()
            else:
                die()
        return original(*arguments, **settings)

    setattr(owner, name, trap)


def execute(module, arguments, cwd, kill, env, out, err):
    """In the fork."""
    for number, name in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.environ.update(env)
    os.chdir(cwd)
    if kill:
        die_at(*kill)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
