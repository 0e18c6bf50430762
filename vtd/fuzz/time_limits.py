"""How long a call may take: it is interrupted when its time, or all time, is up.

By SIGALRM, and so in the main thread only; in others a call takes as long as it likes.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERVAL = 0.1
"""Seconds between two looks at the clock."""


class OutOfTimeError(Exception):
    """A call was still busy when the time for all of them was up."""


class TooLongError(Exception):
    """A call took longer than it may."""


@contextmanager
def interrupted(limit: float, expired: Callable[[], bool]) -> Iterator[None]:
    """Raise TooLongError in what takes longer than ``limit`` seconds, or OutOfTimeError."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end, over = time.monotonic() + limit, False

    def look(*_: object) -> None:
        if over:
            return
        if expired():
            raise OutOfTimeError
        if time.monotonic() >= end:
            raise TooLongError(f"no answer within {limit:g} s")

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)  # again, should it be caught
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
