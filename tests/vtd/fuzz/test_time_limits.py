"""What takes too long is interrupted, wherever it is, and nothing else is."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from vtd.fuzz import time_limits
from vtd.fuzz.time_limits import OutOfTimeError, TooLongError, within


def waits() -> None:
    while True:
        signal.pause()


def switched_off() -> bool:
    return signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and (
        signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    )


def test_a_call_that_is_in_time_is_answered() -> None:
    assert within(3600, lambda: False, lambda: 7) == 7
    assert switched_off()


def test_a_call_that_takes_too_long_is_interrupted() -> None:
    with pytest.raises(TooLongError, match=r"^no answer within 0\.5 s$"):
        within(0.5, lambda: False, waits)
    with pytest.raises(OutOfTimeError):
        within(3600, lambda: True, waits)
    assert switched_off()


def test_an_interruption_that_is_caught_comes_again() -> None:
    caught: list[TooLongError] = []

    def stubborn() -> None:
        while len(caught) < 3:
            try:
                waits()
            except TooLongError as error:
                caught.append(error)

    within(0, lambda: False, stubborn)
    assert len(caught) == 3


def test_the_measurement_of_coverage_is_not_interrupted() -> None:
    """It would keep the lock that it holds."""
    measures: dict[str, Any] = {"__package__": "coverage", "pause": signal.pause, "ends": []}
    exec("def measure():\n    pause()\n    ends.append(True)", measures)

    def call() -> None:
        measures["measure"]()
        waits()

    with pytest.raises(TooLongError):
        within(0, lambda: False, call)
    assert measures["ends"] == [True]


def events_before_the_alarm(turn: int) -> int:
    """An alarm at one event of a trace of ``within``; how many there were up to it.

    What traces is called by what it traces, as coverage is, and may be interrupted too.
    """
    events = 0

    def ring(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal events
        if frame.f_code.co_filename == time_limits.__file__ and events < turn:
            events += 1
            if events == turn and callable(signal.getsignal(signal.SIGALRM)):
                signal.raise_signal(signal.SIGALRM)
        return ring

    before = sys.gettrace()
    sys.settrace(ring)
    try:
        with suppress(TooLongError):
            within(0, lambda: False, lambda: None)
    finally:
        sys.settrace(before)
    return events


def test_no_alarm_is_left_wherever_one_comes() -> None:
    turns = 0
    while events_before_the_alarm(turns + 1) > turns:
        assert switched_off()
        turns += 1
    assert turns > 10
