"""Taking host names, MAC addresses and serial numbers out of what was collected."""

from __future__ import annotations

import re
from collections.abc import Iterable

from devices.config_space import ExtendedCapabilityHeader
from vtd.dmar.listing.config_space import CONVENTIONAL

SERIAL_CAPABILITY = 0x0003
"""Device serial number, which network cards make from their MAC address."""
_MAC = re.compile(
    rb"(?<![0-9A-Fa-f:.-])(?:[0-9A-Fa-f]{2}[:-]){5,7}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:.-])"
)
_SERIAL = re.compile(
    rb"((?:Serial|serial)[ _-]?(?:[Nn]umber|No\.?)?[:=]? +|SerialNumber[:=] *|serial=)[^\s,;]+"
)
_UUID = re.compile(rb"\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b")
_NAMED = re.compile(
    rb"(Hostname set to <|hostname[:= ]+|hostname=|nodename=)[^\s>]+", re.IGNORECASE
)


class Redaction:
    """What to take out; known names and addresses also where their form does not show it."""

    def __init__(self, host_names: Iterable[str] = (), addresses: Iterable[str] = ()) -> None:
        words = [name for name in host_names if len(name) > 1 and name != "localhost"]
        self._names = [
            re.compile(rb"(?<![\w-])" + re.escape(word.encode()) + rb"(?![\w-])", re.IGNORECASE)
            for word in sorted(words, key=len, reverse=True)
        ]
        known = {each.strip().lower() for each in addresses}
        self._addresses = [
            form.encode()
            for each in known
            if each.replace(":", "").strip("0")
            for form in (each, each.replace(":", "-"), each.replace(":", ""))
        ]

    def cleaned(self, name: str, data: bytes) -> bytes:
        """The content of a file without them; configuration spaces lose their serial number."""
        if name.endswith("/config"):
            return _without_serial(data)
        if name.startswith("acpi/"):
            return data
        for word in self._names:
            data = word.sub(b"HOST", data)
        for form in self._addresses:
            data = re.sub(re.escape(form), b"MAC", data, flags=re.IGNORECASE)
        data = _MAC.sub(b"MAC", data)
        data = _NAMED.sub(rb"\1HOST", data)
        data = _UUID.sub(b"UUID", data)
        return _SERIAL.sub(rb"\1SERIAL", data)


def _without_serial(config: bytes) -> bytes:
    cleaned = bytearray(config)
    seen = set()
    position = CONVENTIONAL
    while CONVENTIONAL <= position <= len(config) - 12 and position not in seen:
        seen.add(position)
        header = ExtendedCapabilityHeader(int.from_bytes(config[position : position + 4], "little"))
        if header.capability_id == SERIAL_CAPABILITY:
            cleaned[position + 4 : position + 12] = bytes(8)
        position = header.next & ~3
    return bytes(cleaned)
