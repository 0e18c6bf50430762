"""Runs a driver under test whose operations are C functions, as a process with line-JSON.

The functions are those of ``docs/fuzzing.md``; they may end this process as they like.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

U32, U64, HANDLE = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
READ = ctypes.CFUNCTYPE(None, HANDLE, U64, HANDLE, U64)
WRITE = ctypes.CFUNCTYPE(None, HANDLE, U64, HANDLE, U64)
READ_REGISTER = ctypes.CFUNCTYPE(U64, HANDLE, U32, U32)
FLUSH = ctypes.CFUNCTYPE(None, HANDLE, U64, U64)
WRITE_REGISTER = ctypes.CFUNCTYPE(None, HANDLE, U32, U32, U64)
SIGNATURES: dict[str, tuple[type, ...]] = {
    "reset": (),
    "attach": (U32, U32),
    "detach": (U32,),
    "map": (U32, U64, U64, U64, U32),
    "unmap": (U32, U64, U64),
    "protect": (U32, U64, U64, U32),
    "interrupt_allocate": (U32, U32),
    "interrupt_free": (U32,),
    "attach_pasid": (U32, U32, U32),
    "detach_pasid": (U32, U32),
    "set_dirty_tracking": (U32, U32),
    "read_dirty": (U32, U64, U64, ctypes.POINTER(U64), U32),
}
"""Arguments of each operation after the driver itself."""
MOST_PAGES = 4096
"""Pages that ``read_dirty`` may tell of at a time."""


class Host(ctypes.Structure):
    """What the driver is given: ways to memory and registers, and its own memory."""

    _fields_ = (
        ("context", HANDLE),
        ("read", READ),
        ("write", WRITE),
        ("read_register", READ_REGISTER),
        ("write_register", WRITE_REGISTER),
        ("memory_start", U64),
        ("memory_end", U64),
        ("flush", FLUSH),
    )


def ask(**message: object) -> Any:
    """What the harness answers."""
    say(message)
    return json.loads(sys.stdin.readline())["value"]


def say(message: object) -> None:
    """Send a line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _read(_: object, address: int, data: int, length: int) -> None:
    got = bytes.fromhex(ask(read=[address, length]))
    ctypes.memmove(data, got, len(got))


def _write(_: object, address: int, data: int, length: int) -> None:
    ask(write=[address, ctypes.string_at(data, length).hex()])


def _flush(_: object, address: int, length: int) -> None:
    ask(flush=[address, length])


def _read_register(_: object, offset: int, size: int) -> int:
    value: int = ask(reg_read=[offset, size])
    return value


def _write_register(_: object, offset: int, size: int, value: int) -> None:
    ask(reg_write=[offset, size, value])


class LibraryDriver:
    """The functions ``driver_*`` of a shared library; OSError or AttributeError if it has none."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.driver_new.restype = HANDLE
        self._library.driver_new.argtypes = [ctypes.POINTER(Host)]
        self._host: Host | None = None
        self._driver: int | None = None

    def carry_out(self, op: str, arguments: dict[str, int]) -> object:
        """The answer to one operation: ``{"done": ...}`` or ``{"error": ...}``."""
        if op == "reset":
            start, end = arguments.pop("memory_start"), arguments.pop("memory_end")
            self._host = Host(
                None,
                READ(_read),
                WRITE(_write),
                READ_REGISTER(_read_register),
                WRITE_REGISTER(_write_register),
                start,
                end,
                FLUSH(_flush),
            )
            self._driver = self._library.driver_new(ctypes.byref(self._host))
        function = getattr(self._library, f"driver_{op}", None)
        if function is None:
            return {"error": f"the library has no driver_{op}"}
        function.restype = ctypes.c_int64
        function.argtypes = [HANDLE, *SIGNATURES[op]]
        if op != "read_dirty":
            result = function(self._driver, *arguments.values())
            return {"error": f"driver_{op}: {result}"} if result < 0 else {"done": result}
        pages = (U64 * MOST_PAGES)()
        count = function(self._driver, *arguments.values(), pages, MOST_PAGES)
        return {"done": list(pages[:count])} if count >= 0 else {"error": f"driver_{op}: {count}"}


def main(path: str) -> None:
    """Answer every operation of stdin."""
    driver = LibraryDriver(path)
    for line in sys.stdin:
        arguments = json.loads(line)
        say(driver.carry_out(arguments.pop("op"), arguments))


if __name__ == "__main__":
    main(sys.argv[1])
