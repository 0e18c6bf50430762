"""Simulated time, in nanoseconds, and what device models want done when it has come.

Nobody here looks at a real clock: whoever owns the time lets it pass, in simulations as fast as it
likes, in live use by as much as has really passed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Alarm:
    """Something to be done at a time, unless it is cancelled."""

    def __init__(self, due: int, action: Callable[[], None]) -> None:
        self.due = due
        self.cancelled = False
        self._action = action

    def cancel(self) -> None:
        """Have it not done; without effect once it was."""
        self.cancelled = True

    def ring(self) -> None:
        """Do it."""
        self._action()


class Clock:
    """The time of one machine, which all its models share. ``now`` only ever grows."""

    def __init__(self) -> None:
        self.now = 0
        self._alarms: list[tuple[int, int, Alarm]] = []
        self._set = 0
        self._end = 0
        """Up to when time passes at the moment."""
        self._most = 64
        """Alarms above which cancelled ones are looked for."""

    def after(self, nanoseconds: int, action: Callable[[], None]) -> Alarm:
        """Have ``action`` called once so much time has passed; 0 is the next time any does."""
        alarm = Alarm(self.now + max(nanoseconds, 0), action)
        self._set += 1  # alarms due at one time ring in the order in which they were set
        heapq.heappush(self._alarms, (alarm.due, self._set, alarm))
        if len(self._alarms) > self._most:
            self._alarms = [each for each in self._alarms if not each[2].cancelled]
            heapq.heapify(self._alarms)
            self._most = 2 * len(self._alarms) + 64
        return alarm

    def next_due(self) -> int | None:
        """The time of the next alarm, None if there is none."""
        alarms = self._alarms
        while alarms and alarms[0][2].cancelled:
            heapq.heappop(alarms)
        return alarms[0][0] if alarms else None

    def advance(self, nanoseconds: int) -> None:
        """Let time pass. Alarms ring in their order, each at its own time; so do those they set."""
        end = self._end = self.now + nanoseconds
        while self._alarms and self._alarms[0][0] <= end:
            due, _, alarm = heapq.heappop(self._alarms)
            if not alarm.cancelled:
                self.now = max(self.now, due)
                alarm.ring()
        self.now = max(self.now, end)

    def skip(self, nanoseconds: int) -> bool:
        """What an alarm does that would set itself again: go on at once, if nothing is in between.

        False if time does not pass that far yet, or another alarm rings before.
        """
        due = self.now + nanoseconds
        if due > self._end or (self._alarms and self._alarms[0][0] <= due):
            return False
        self.now = due
        return True
