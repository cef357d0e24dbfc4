import os
import signal

import pytest

from awp_tf.infra.signals import Interrupt, Interrupted


def handlers():
    """Those of now: a background job of a shell may ignore SIGINT."""
    return {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_handlers_come_back(signum):
    before = handlers()
    with Interrupt() as interrupt:
        assert not before.items() & handlers().items()
        interrupt.check()
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted, match=signum.name):
            interrupt.check()
        assert handlers() == before  # so that a second signal has its usual effect, the other one, too
    assert handlers() == before
