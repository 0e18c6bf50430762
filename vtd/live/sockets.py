"""UNIX sockets that carry file descriptors, in a folder that is private to the user.

The one module of the package that talks to the operating system, besides the event loop.
"""

from __future__ import annotations

import os
import socket
from array import array
from contextlib import suppress
from pathlib import Path

from vtd.live.messages import MAX_FDS

CHUNK = 1 << 16
"""Bytes that are asked for at a time."""
ANCILLARY = socket.CMSG_SPACE(4 * MAX_FDS)
"""Bytes that the file descriptors of one message take."""
_ONE = (1).to_bytes(8, "little")


class FileDescriptor:
    """A file descriptor of this process, closed once."""

    def __init__(self, number: int) -> None:
        self.number = number

    def signal(self) -> None:
        """Add one to an eventfd; nothing happens if it is none, or can't take it."""
        with suppress(OSError):
            os.set_blocking(self.number, False)
            os.write(self.number, _ONE)

    def close(self) -> None:
        """Give it back."""
        if self.number >= 0:
            with suppress(OSError):
                os.close(self.number)
            self.number = -1


def received(ancillary: list[tuple[int, int, bytes]]) -> list[FileDescriptor]:
    """The file descriptors that came with a message."""
    numbers = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    return [FileDescriptor(number) for number in numbers]


class Listener:
    """A socket at ``path``, for this user only; OSError if the path is taken or can't be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(path))
            self._socket.listen(1)
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise OSError(error.errno or 0, error.strerror or str(error), str(path)) from error
        finally:
            os.umask(before)

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """The connection of the next client, or None if it has gone again."""
        try:
            accepted, _ = self._socket.accept()
        except OSError:
            return None
        return accepted

    def close(self) -> None:
        """Listen no more, and remove the path."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
