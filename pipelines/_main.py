"""How every command ends: errors of one line with exit code 2, signals with 128 plus their number."""

import contextlib
import errno
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence

import absl.app
import absl.flags
import absl.logging
import tensorflow as tf

from awp_tf.infra.errors import UserError, first_line
from awp_tf.infra.signals import Interrupted
from awp_tf.infra.workers import WorkerLost

_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong with the command, it may be started again
_MAKE_ROOM = "Make room, or choose another folder; the same command goes on from what is there."


def main(command: Callable[[Sequence[str]], object]) -> None:
    """Runs a command under absl, and turns its errors into one line and an exit code."""

    def run(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            sys.exit(_complain(UserError(f"expected only flags, received {argv[1]!r}; see --help.")))
        try:
            with _plain_failures():
                command(argv)
        except UserError as error:
            sys.exit(_complain(error))
        except Interrupted as stop:
            print(
                f"\n{first_line(stop)}; the state is saved, and the same command goes on from there.", file=sys.stderr
            )
            _leave(128 + stop.signum)
        except WorkerLost as lost:
            print(f"\n{first_line(lost)}; started again, all workers go on from the last checkpoint.", file=sys.stderr)
            _leave(_AGAIN)
        except KeyboardInterrupt:
            print("\nstopped by SIGINT; the same command goes on from the last checkpoint.", file=sys.stderr)
            sys.exit(130)

    absl.logging.set_verbosity(absl.logging.ERROR)
    _describe(sys.modules[command.__module__])
    with _usage_errors_exit_with_2():
        absl.app.run(run, flags_parser=absl.flags.FLAGS)


def _leave(code: int) -> None:
    """At once: TensorFlow's farewell waits for other workers, which may be gone, and who sent a signal waits, too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _describe(module: types.ModuleType) -> None:
    """So that --help says of an installed command what it says of python -m."""
    main_module = sys.modules["__main__"]
    if main_module is not module:
        main_module.__doc__ = module.__doc__
        for flag in absl.flags.FLAGS.get_key_flags_for_module(module.__name__):
            absl.flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


@contextlib.contextmanager
def _plain_failures() -> Iterator[None]:
    """What surroundings do to a command: a reader that has gone, a disk that is full."""
    try:
        yield
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
        sys.exit(128 + signal.SIGPIPE)
    except (OSError, tf.errors.OpError) as error:
        if not _of_disk(error):
            raise
        refused = any(os.strerror(code) in str(error) for code in (errno.EACCES, errno.EPERM))
        advice = "Expected permission for it." if refused else _MAKE_ROOM
        raise UserError(f"cannot be {'used' if refused else 'written'}: {first_line(error)}. {advice}") from error


def _of_disk(error: Exception) -> bool:
    """Whether a file could not be written for want of room or of permission; gin's copy of an error has no number."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
    return any(os.strerror(code) in str(error) for code in codes)


def _complain(error: UserError) -> int:
    print(f"error: {first_line(error, most=None)}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def _usage_errors_exit_with_2() -> Iterator[None]:
    try:
        yield
    except absl.flags.Error as error:
        sys.exit(_complain(UserError(f"{error}; see --help.")))
