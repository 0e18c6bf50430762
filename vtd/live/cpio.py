"""Archives in the newc form of cpio, which a kernel unpacks as its first file system.

https://docs.kernel.org/driver-api/early-userspace/buffer-format.html describes the form.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


class Archive:
    """Files by path, in the order in which they were added; their folders come by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def add(self, path: str, content: bytes, *, executable: bool = False) -> None:
        """A file at ``path``, without a slash in front."""
        self._folders(path)
        mode = stat.S_IFREG | (0o755 if executable else 0o644)
        self._entries[path] = mode, content, (0, 0)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._folders(path)
        self._entries[path] = stat.S_IFLNK | 0o777, target.encode(), (0, 0)

    def character_device(self, path: str, major: int, minor: int) -> None:
        """A character device."""
        self._folders(path)
        self._entries[path] = stat.S_IFCHR | 0o600, b"", (major, minor)

    def pack(self) -> bytes:
        """The archive."""
        entries = [*self._entries.items(), (TRAILER, (0, b"", (0, 0)))]
        return b"".join(
            part
            for number, (path, entry) in enumerate(entries)
            for part in _packed(number, path, *entry)
        )

    def _folders(self, path: str) -> None:
        above = path.split("/")[:-1]
        for depth in range(len(above)):
            folder = "/".join(above[: depth + 1])
            self._entries.setdefault(folder, (stat.S_IFDIR | 0o755, b"", (0, 0)))


def _packed(
    number: int, path: str, mode: int, content: bytes, device: tuple[int, int]
) -> Iterator[bytes]:
    """Header, name and content of one entry, each padded to 4 bytes."""
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0)
    header = MAGIC + b"".join(b"%08x" % field for field in fields) + name
    for part in (header, content):  # none of them is copied
        yield part
        yield bytes(-len(part) % 4)
