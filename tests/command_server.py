"""pipelines.train as a person starts it, forked from a process that has imported TensorFlow already.

Importing it takes seconds, which every start would take again. What a command does, prints and answers is that of a
process of its own: it is forked for each request, a line of JSON with "arguments", "cwd", "env", "out" and "err".
"""

import errno
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import traceback


class CommandServer:
    """Starts commands; see the module."""

    def __init__(self, root):
        self._root = str(root)
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": self._root},
        )

    def train(self, *arguments, cwd=None, kill=None, **env):
        """What subprocess.run gives for python -m pipelines.train.

        kill is (what, n): SIGKILL n "seconds" after the start, or at the n-th file that is "replaced", checkpoint that
        is "written" (in its middle), or batch that is "measured"; or, from the n-th file on, the disk is "full"; or no
        file finds more "room" than n bytes, so that it fails half-written.
        """
        with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
            request = {"arguments": arguments, "cwd": str(cwd or self._root), "env": env, "kill": kill}
            print(json.dumps({**request, "out": out.name, "err": err.name}), file=self._server.stdin, flush=True)
            code = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, out.read(), err.read())

    def close(self):
        self._server.communicate()


def serve():
    import pipelines.train  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            execute(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(what, n):
    """Sets the trap; see CommandServer.train."""
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


def execute(request):
    """In the fork: never returns."""
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR), number)
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if request["kill"]:
        die_at(*request["kill"])
    sys.argv = ["pipelines/train.py", *request["arguments"]]
    code = 1
    try:
        sys.modules["pipelines.train"].main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
