"""Faults that systems print on several lines, put together although lines of others come between.

A line that tells more goes to the earliest fault that still lacks it. A fault is given up as
incomplete when the log has gone on, or when a later one was completed although its own line should
have come first.
"""

from __future__ import annotations

from collections.abc import Iterator

from vtd.logs.fault import LoggedFault, RequestKind
from vtd.logs.fault_record import settled

FARTHEST = 50
"""Lines after which the rest of a fault is not expected any more."""
NEAR = 4
"""Lines within which halves of several faults may stand in each other's way."""
_BY_SYSTEM = {"Xen": "Linux"}
"""Systems that share their form with another; a line may lack what tells them apart."""


class Pairing:
    """Faults of which parts were read."""

    def __init__(self) -> None:
        self._waiting: list[LoggedFault] = []

    def waits(self, system: str) -> int:
        """Faults of a system that lack something."""
        return sum(_family(each.system) == _family(system) for each in self._waiting)

    def begin(self, fault: LoggedFault) -> None:
        """A first line."""
        self._waiting.append(fault)

    @property
    def last(self) -> LoggedFault:
        """The first line that came last."""
        return self._waiting[-1]

    def withdraw(self) -> None:
        """Forget the first line that came last: it was read anew together with the next."""
        self._waiting.pop()

    def complete(self, part: LoggedFault) -> Iterator[LoggedFault]:
        """A further line: the fault that is whole with it, and those given up on the way.

        Without a first line the part is a fault of its own, of which the rest is missing.
        """
        fitting = [each for each in self._waiting if _fits(each, part)]
        if not fitting:
            yield settled(part)
            return
        chosen = fitting[0]
        if fitting[-1].line == part.line - 1 and part.line - chosen.line > NEAR:
            chosen = fitting[-1]
            for each in fitting[:-1]:
                self._waiting.remove(each)
                yield settled(each)
        position = self._waiting.index(chosen)
        merged = _merged(chosen, part)
        if _is_whole(merged):
            del self._waiting[position]
            yield settled(merged)
        else:
            self._waiting[position] = merged

    def give_up(self, line: int | None = None) -> Iterator[LoggedFault]:
        """The faults whose rest is not expected any more at a line; all at the end of the log."""
        while self._waiting and (line is None or line - self._waiting[0].line > FARTHEST):
            yield settled(self._waiting.pop(0))


def _family(system: str) -> str:
    return _BY_SYSTEM.get(system, system)


def _fits(fault: LoggedFault, part: LoggedFault) -> bool:
    if _family(fault.system) != _family(part.system):
        return False
    clash = (
        fault.source is not None and part.source is not None,
        fault.target is not None and part.target is not None,
        fault.reason is not None and part.reason is not None,
    )
    return not any(clash)


def _merged(fault: LoggedFault, part: LoggedFault) -> LoggedFault:
    unknown = fault.kind is RequestKind.UNKNOWN
    return fault._replace(
        kind=part.kind if unknown else fault.kind,
        source=part.source if fault.source is None else fault.source,
        target=part.target if fault.target is None else fault.target,
        reason=part.reason if fault.reason is None else fault.reason,
        system=part.system if fault.system == "Linux" else fault.system,
        note=part.note or fault.note,
    )


def _is_whole(fault: LoggedFault) -> bool:
    """Whether no further line is expected."""
    if fault.system == "illumos":
        return fault.source is not None
    return fault.source is not None and fault.reason is not None
