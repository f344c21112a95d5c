"""A second signal ends a run at once, wherever it comes."""

import signal
import time

import pytest

from diffood.serving.stop import Stop, handle_signals


class SignalInFinalizer:
    """Is signalled while Python finalizes it, and ignores the exceptions of that."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_second_signal_in_a_finalizer_ends_the_run_right_after_it() -> None:
    stop = Stop()
    with handle_signals(stop):
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            waited = SignalInFinalizer()
            del waited
            time.sleep(60)
