"""How bad a finding is, of whatever kind: of tables, structures, register accesses or drivers."""

from enum import IntEnum


class Severity(IntEnum):
    """How bad a finding is; ordered."""

    INFO = 0
    """Unusual but legal."""
    WARNING = 1
    """Dubious, or some software complains or misbehaves."""
    ERROR = 2
    """A "must" of the specification is broken, or a mainstream system refuses it."""

    def __str__(self) -> str:
        return self.name.lower()


ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
