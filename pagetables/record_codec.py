"""The construct codec of a bit record: little-endian bytes to record and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from construct import Adapter, BytesInteger

if TYPE_CHECKING:
    from pagetables.bits import BitRecord


class RecordCodec(Adapter):  # type: ignore[misc]  # construct has no types
    """Parses and builds one record type, alone or inside a construct ``Struct`` or ``Array``."""

    def __init__(self, record: type[BitRecord]) -> None:
        super().__init__(BytesInteger(record.WIDTH // 8, swapped=True))
        self.record = record

    def _decode(self, number: int, context: object, path: str) -> BitRecord:
        return self.record(number)

    def _encode(self, record: int, context: object, path: str) -> int:
        return int(record)


_CODECS: dict[type[BitRecord], RecordCodec] = {}


def record_codec(record: type[BitRecord]) -> RecordCodec:
    """The one codec of a record type."""
    if record not in _CODECS:
        _CODECS[record] = RecordCodec(record)
    return _CODECS[record]
