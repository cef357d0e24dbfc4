"""SIGINT and SIGTERM as an orderly stop: finish the step, save, leave."""

import signal
import types
from typing import Self


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """Raised once a signal is noticed: by Interrupt.check, Workers.stop, and loops that several workers leave together.

    Attributes:
        signum: The signal's number; commands exit with 128 + signum, as shells report it.
    """

    def __init__(self, signum: int) -> None:
        """Remembers the signal."""
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupt:
    """A context in which the signals only set a flag; a second one has its usual effect."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._signum = 0
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Takes the two signals over (in the main thread; elsewhere it does nothing)."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[signum] = signal.signal(signum, self._note)
            except ValueError:
                return self
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back."""
        for signum, handler in self._old.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    @property
    def signum(self) -> int:
        """The signal that came; 0 while there was none."""
        return self._signum

    def check(self) -> None:
        """Raises Interrupted if a signal came."""
        if self._signum:
            raise Interrupted(self._signum)

    def _note(self, signum: int, frame: types.FrameType | None) -> None:
        self._signum = signum
        self.__exit__()
