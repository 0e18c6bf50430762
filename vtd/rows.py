"""What an answer is made of: rows, and the numbers in them that are hexadecimal.

A row is a frozen dataclass or a mapping (an object with named fields), or a tuple, a list or an
iterator (a list).
Who computes rows knows nothing of text or JSON; who shows them computes nothing.
"""

from __future__ import annotations

from enum import Enum

from pagetables.bits import BitRecord


class Hex(int):
    """An address, a register or a raw entry: in text and in JSON it is written in hexadecimal."""

    def __str__(self) -> str:
        return hex(self)

    @classmethod
    def known(cls, value: int | None) -> Hex | None:
        """``value`` in hexadecimal; what is unknown stays None."""
        return None if value is None else cls(value)


def field_values(record: BitRecord) -> dict[str, int]:
    """The fields of an entry as numbers; those stored without low bits, which are addresses,
    are hexadecimal.
    """
    return {
        name: Hex(value) if record.FIELDS[name].shift else int(value)
        for name, value in record.fields().items()
    }


def field_words(record: BitRecord) -> dict[str, str]:
    """The fields of an entry that are not 0, in words: codes by name, large numbers hexadecimal."""
    return {name: _word(value) for name, value in record.fields().items() if value}


def _word(value: object) -> str:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:#x}" if isinstance(value, int) and value > 9 else str(value)
