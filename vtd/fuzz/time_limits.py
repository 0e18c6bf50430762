"""How long a call may take: it is interrupted when its time, or all time, is up.

By SIGALRM, and so in the main thread only; in others a call takes as long as it likes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import TypeVar

INTERVAL = 0.1
"""Seconds between two looks at the clock."""

Result = TypeVar("Result")


class OutOfTimeError(Exception):
    """A call was still busy when the time for all of them was up."""


class TooLongError(Exception):
    """A call took longer than it may."""


def within(limit: float, expired: Callable[[], bool], call: Callable[[], Result]) -> Result:
    """What ``call`` returns; in it, TooLongError is raised after ``limit`` seconds, and
    OutOfTimeError once ``expired`` says so, again and again should they be caught.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    end = monotonic() + limit

    def look(_: int, frame: FrameType | None) -> None:
        if not _is_called(frame):
            return  # where the alarm is switched off, above all; it comes again
        if expired():
            raise OutOfTimeError
        if monotonic() >= end:
            raise TooLongError(f"no answer within {limit:g} s")

    before = signal.signal(signal.SIGALRM, look)
    try:
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
        return _called(call)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _called(call: Callable[[], Result]) -> Result:
    """The call itself: what lies below this frame may be interrupted."""
    return call()


def _is_called(frame: FrameType | None) -> bool:
    """Whether a frame is of a call, or of what it calls, and not of what begins and ends it.

    Coverage measurement is no part of what it measures: interrupted, it would keep its lock.
    """
    if frame is not None and frame.f_globals.get("__package__") == "coverage":
        return False
    while frame is not None and frame.f_code not in (_called.__code__, within.__code__):
        frame = frame.f_back
    return frame is not None and frame.f_code is _called.__code__
