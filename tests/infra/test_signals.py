import os
import signal

import pytest

from awp_tf.infra.signals import Interrupt, Interrupted


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_handlers_come_back(signum):
    before = signal.getsignal(signum)
    with Interrupt() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted, match=signum.name):
            interrupt.check()
        assert signal.getsignal(signum) == before  # so that a second signal has its usual effect
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler  # the other one, too
    assert signal.getsignal(signum) == before
