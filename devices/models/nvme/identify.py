"""Identify and log pages of NVMe, as byte layouts.

NVM Express Base Specification 1.4. Only fields that are not 0 are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from devices.models.block_storage import BLOCK_SHIFT
from devices.models.nvme.structures import Admin, Io

PAGE = 4096
VERSION = 0x0001_0400
MAX_PAGES_LOG2 = 7
EVENT_REQUESTS = 4
ERROR_ENTRIES = 4
KELVIN = 0x133
"""The temperature, 34 degrees Celsius."""


class SecondaryController(NamedTuple):
    """A controller of a virtual function, and what it was given."""

    identifier: int
    virtual_function: int
    """Its number, from 1 on."""
    online: bool
    queues: int
    vectors: int


def _page(fields: Mapping[int, bytes], size: int = PAGE) -> bytes:
    page = bytearray(size)
    for offset, data in fields.items():
        page[offset : offset + len(data)] = data
    return bytes(page)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def controller_page(
    identifier: int, namespaces: int, *, primary: bool, virtual: bool, serial: str
) -> bytes:
    """CNS 01h. ``primary`` has virtual functions, ``virtual`` is that of one."""
    return _page(
        {
            0: _u16(0x1B36) + _u16(0x1AF4),
            4: serial.encode().ljust(20),
            24: b"emulated NVMe controller".ljust(40),
            64: b"2.0".ljust(8),
            76: bytes([(primary or virtual) << 1 | virtual << 2, MAX_PAGES_LOG2]),
            78: _u16(identifier) + _u32(VERSION),
            92: _u32(1 << 8),  # notices about namespaces
            256: _u16(primary << 7),
            258: bytes([3, EVENT_REQUESTS - 1, 3, 0b110, ERROR_ENTRIES - 1]),
            512: b"\x66\x44",
            516: _u32(namespaces),
            520: _u16(1 << 3 | 1 << 2 | 1),  # compare, dataset management, write zeroes
            525: bytes([1]),  # a volatile write cache
            536: _u32(1 << 18 | 1 << 16 | 1),  # lists with bit buckets, and longer than the data
            768: f"nqn.2014-08.org.nvmexpress:{serial}".encode(),
        }
    )


def namespace_page(blocks: int, *, shared: bool = False) -> bytes:
    """CNS 00h: one format, 512-byte blocks without metadata."""
    size = blocks.to_bytes(8, "little")
    return _page({0: 3 * size, 30: bytes([shared]), 130: bytes([BLOCK_SHIFT])})


def namespace_list(identifiers: Iterable[int], after: int) -> bytes:
    """CNS 02h and 10h: ids above ``after``, rising."""
    listed = sorted(each for each in identifiers if each > after)[: PAGE // 4]
    return _page({0: b"".join(map(_u32, listed))})


def namespace_descriptors(nsid: int) -> bytes:
    """CNS 03h: an EUI-64."""
    return _page({0: b"\x01\x08\0\0" + b"\x52\x54" + nsid.to_bytes(6, "big")})


def controller_list(identifiers: Iterable[int], least: int) -> bytes:
    """CNS 12h and 13h: controllers from ``least`` on."""
    listed = [each for each in identifiers if each >= least]
    return _page({0: _u16(len(listed)) + b"".join(map(_u16, listed))})


def primary_capabilities(
    flexible: int, most: int, secondaries: Iterable[SecondaryController], private: int
) -> bytes:
    """CNS 14h: queues and vectors, ``flexible`` of each for virtual functions, ``most`` for one."""
    known = list(secondaries)
    given = sum(each.queues for each in known), sum(each.vectors for each in known)

    def resources(assigned: int) -> bytes:
        return _u32(flexible) + _u32(assigned) + _u16(0) + _u16(private) + _u16(most) + _u16(1)

    return _page({4: bytes([0b11]), 32: resources(given[0]), 64: resources(given[1])})


def secondary_list(secondaries: Iterable[SecondaryController], least: int) -> bytes:
    """CNS 15h: controllers of virtual functions from ``least`` on."""
    listed = [each for each in secondaries if each.identifier >= least][:127]
    entries = b"".join(
        (
            _u16(each.identifier) + _u16(0) + bytes([each.online, 0, 0, 0])
            + _u16(each.virtual_function) + _u16(each.queues) + _u16(each.vectors)
        ).ljust(32, b"\0")
        for each in listed
    )  # fmt: skip
    return _page({0: bytes([len(listed)]), 32: entries})


def health_log(counters: Mapping[str, int], *, hot: bool) -> bytes:
    """Log page 02h; ``counters`` by name, ``hot`` if a temperature threshold is passed."""
    fields = {0: bytes([hot << 1]) + _u16(KELVIN) + bytes([100, 10, 0])}
    for offset, name in (
        (32, "units_read"),
        (48, "units_written"),
        (64, "reads"),
        (80, "writes"),
        (144, "unsafe_shutdowns"),
        (160, "media_errors"),
        (176, "errors"),
    ):
        fields[offset] = counters.get(name, 0).to_bytes(16, "little")
    return _page(fields, 512)


def firmware_log() -> bytes:
    """Log page 03h: one slot, active."""
    return _page({0: b"\1", 8: b"2.0".ljust(8)}, 512)


def effects_log() -> bytes:
    """Log page 05h: commands that there are, and which of them change what is stored."""
    fields = {4 * each: _u32(1) for each in Admin}
    fields |= {1024 + 4 * each: _u32(1) for each in Io}
    for each in (Io.WRITE, Io.WRITE_ZEROES, Io.DATASET):
        fields[1024 + 4 * each] = _u32(0b11)
    return _page(fields)


def error_log(entries: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Log page 01h: (error count, queue, command id, status) of each, the newest first."""
    packed = b"".join(
        (
            count.to_bytes(8, "little") + _u16(queue) + _u16(command) + _u16(status << 1)
        ).ljust(64, b"\0")
        for count, queue, command, status in entries
    )  # fmt: skip
    return packed.ljust(64 * ERROR_ENTRIES, b"\0")
