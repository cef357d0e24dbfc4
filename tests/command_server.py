"""pipelines.train as a person starts it, forked from a process that has imported TensorFlow already.

Importing it takes seconds, which every start would take again. What a command does, prints and answers is that of a
process of its own: it is forked for each request, a line of JSON with "arguments", "cwd", "env", "out" and "err".
"""

import json
import os
import subprocess
import sys
import tempfile
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

    def train(self, *arguments, cwd=None, **env):
        """What subprocess.run gives for python -m pipelines.train."""
        with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
            request = {"arguments": arguments, "cwd": str(cwd or self._root), "env": env}
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


def execute(request):
    """In the fork: never returns."""
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR), number)
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
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
