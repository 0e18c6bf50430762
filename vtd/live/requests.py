"""What every command of a client has: a refusal with an error number, and file descriptors."""

from __future__ import annotations

import errno
from typing import Protocol


class RequestError(Exception):
    """A command that is not carried out; the client is told the error number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


class Descriptor(Protocol):
    """A file descriptor that came with a message; it is closed unless somebody keeps it."""

    @property
    def number(self) -> int: ...

    def signal(self) -> None:
        """Add one to an eventfd; nothing happens if it is none, or can't take it."""
        ...

    def close(self) -> None: ...
