"""The table entries that Linux and Xen dump after a fault, and whether they go with its reason.

Legacy tables (VT-d 9.1, 9.3) and scalable-mode tables (9.2, 9.4 to 9.6): in every entry bit 0 is
the present flag. A dump that shows as present what the reason says is absent means that the unit
did not see what software wrote.
"""

from __future__ import annotations

import re

PRESENT = 1

_BEGIN = re.compile(r"Dump \w+ table entries for IOVA|print_vtd_entries", re.ASCII)
_ENTRY = re.compile(
    r"(?P<mode>scalable mode )?(?P<name>root entry|context entry|pasid dir entry|"
    r"pasid table entry\[(?P<index>\d)\]): ?(?:hi (?P<hi>0x[0-9a-f]+), low )?(?P<low>0x[0-9a-f]+)",
    re.ASCII,
)
_PTE = re.compile(r"pte level: (\d+), pte value: (0x[0-9a-f]+)", re.ASCII)
_EMPTY_LEVEL = re.compile(
    r"not present at level (\d+)|\bl(\d)\[[0-9a-f]+\] (?:not present|= 0(?: |$))", re.ASCII
)
_XEN_ENTRY = re.compile(
    r"\b(root|con|ct)(?:_entry|text|xt_entry)\[\w+\] = (?:\w+_)?([0-9a-f]+)", re.ASCII
)

_ABSENT = {
    0x01: "root entry",
    0x02: "context entry",
    0x39: "root entry",
    0x41: "context entry",
    0x51: "pasid dir entry",
    0x59: "pasid table entry[0]",
}
"""The entry that a reason says is not present."""


class TableDump:
    """A dump as far as it was read."""

    def __init__(self) -> None:
        self.level: int | None = None
        """Level of the page tables at which it ends."""
        self._entries: dict[str, int] = {}

    def read(self, text: str) -> None:
        """Take up a line of a dump."""
        if _BEGIN.search(text):
            self._entries, self.level = {}, None
        elif match := _EMPTY_LEVEL.search(text):
            self.level = int(match[1] or match[2])
        elif match := _XEN_ENTRY.search(text):
            name = "root entry" if match[1] == "root" else "context entry"
            self._entries[name] = int(match[2], 16)
        elif match := _ENTRY.search(text):
            value = int(match["low"], 16)
            if match["mode"] and match["name"] == "root entry" and match["hi"]:
                value |= int(match["hi"], 16) & PRESENT
            self._entries[match["name"]] = value
        elif match := _PTE.search(text):
            self._entries[f"level {match[1]}"] = int(match[2], 16)

    def contradiction(self, reason: int | None) -> str:
        """What the dump shows that does not go with a fault reason, empty if nothing."""
        name = _ABSENT.get(reason or 0)
        value = self._entries.get(name or "", 0)
        if not value & PRESENT:
            return ""
        return (
            f"the dump contradicts it: {name} 0x{value:x} is present in memory. Software wrote it "
            "and the unit did not see it: a missing flush on a unit that does not snoop its tables "
            "(ECAP.C or SMPWC clear), or a missing invalidation"
        )
