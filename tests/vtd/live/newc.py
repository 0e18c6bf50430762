"""A reader of newc archives, written from their description."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One file of an archive."""

    mode: int
    content: bytes
    device: tuple[int, int]


def read_newc(data: bytes) -> dict[str, Entry]:
    """The entries of archives, one behind the other, each with a trailer."""
    entries: dict[str, Entry] = {}
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, length, name_length = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_length - 1].decode()
        assert data[at + 110 + name_length - 1] == 0
        start = at + 110 + name_length + 3 & ~3
        content = data[start : start + length]
        at = start + length + 3 & ~3
        if name != "TRAILER!!!":
            entries[name] = Entry(mode, content, (fields[9], fields[10]))
    return entries
