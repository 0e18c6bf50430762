"""States to be judged, from JSON: a profile and fields by encoding; the others are ordinary.

``{"profile": "broadwell", "fields": {"0x6820": "0x2"}, "memory": {"0x6080": "f0"}}``, a list of
them, or one a line. Memory that is not given reads as zeros.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pagetables.memory import BusError
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import VMX_PROFILES, VmxCapabilities
from vtd.guest.x86.entry import EntryCheck, check_entry
from vtd.guest.x86.entry_rules import Entry
from vtd.guest.x86.fields import BY_ENCODING, Encoding, FieldWidth
from vtd.guest.x86.vmcs import VmcsState


class StateFileError(ValueError):
    """A state file that can't be understood; the message names the place."""


class KnownMemory:
    """Memory of which some bytes are known; the others are 0."""

    def __init__(self, known: dict[int, bytes]) -> None:
        self._bytes = {
            address + number: byte
            for address, data in known.items()
            for number, byte in enumerate(data)
        }

    def read(self, address: int, length: int) -> bytes:
        """Bytes at an address."""
        if address + length > 1 << 52:
            raise BusError(address, "no memory here")
        return bytes(self._bytes.get(address + number, 0) for number in range(length))

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        self._bytes.update({address + number: byte for number, byte in enumerate(data)})


class JudgedState(NamedTuple):
    """A state with what decides whether it enters."""

    profile: str
    capabilities: VmxCapabilities
    state: VmcsState
    memory: KnownMemory

    def check(self) -> EntryCheck:
        """The checks of a VM entry, by a processor in IA-32e mode."""
        return check_entry(Entry(self.state, self.capabilities, self.memory))


def profile(name: object) -> VmxCapabilities:
    """A profile by name; StateFileError names those that there are."""
    if not isinstance(name, str) or name not in VMX_PROFILES:
        raise StateFileError(f"profile {name!r} is none of {', '.join(VMX_PROFILES)}")
    return VMX_PROFILES[name]


def parse_states(text: str) -> tuple[list[JudgedState], bool]:
    """The states of a file, and whether it is one single object."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise StateFileError(f"line {error.lineno}: no JSON: {error.msg}") from error
        return list(_lines(text)), False
    if isinstance(whole, list):
        return [_state(each, f"item {number}") for number, each in enumerate(whole, 1)], False
    return [_state(whole, "state")], True


def _lines(text: str) -> Iterator[JudgedState]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise StateFileError(f"line {number}: no JSON: {error.msg}") from error
        yield _state(value, f"line {number}")


def _state(value: Any, where: str) -> JudgedState:
    if not isinstance(value, dict):
        raise StateFileError(f"{where}: no object with profile and fields")
    for key in value:
        if key not in ("profile", "fields", "memory"):
            raise StateFileError(f"{where}: {key!r} is none of profile, fields, memory")
    try:
        capabilities = profile(value.get("profile"))
    except StateFileError as error:
        raise StateFileError(f"{where}: {error}") from error
    fields, memory = value.get("fields", {}), value.get("memory", {})
    if not isinstance(fields, dict) or not isinstance(memory, dict):
        raise StateFileError(f"{where}: fields and memory are objects")
    state = base_state(capabilities)
    values: dict[str, int] = {}
    wrong = []
    for key, given in fields.items():
        try:
            _put(values, state, _number(key), _number(given), key)
        except StateFileError as error:
            wrong.append(str(error))
    if wrong:
        raise StateFileError(f"{where}: " + "; ".join(wrong))
    known = {}
    for key, data in memory.items():
        try:
            known[_number(key)] = bytes.fromhex(data)
        except (TypeError, ValueError) as error:
            raise StateFileError(f"{where}: memory at {key}: no hexadecimal bytes") from error
    return JudgedState(value["profile"], capabilities, state.replace(values), KnownMemory(known))


def _put(values: dict[str, int], state: VmcsState, encoding: int, value: int, key: str) -> None:
    """Set the field of an encoding, or its upper half."""
    field = BY_ENCODING.get(encoding & ~1)
    if field is None or (encoding & 1 and field.width is not FieldWidth.W64):
        raise StateFileError(f"{key} is the encoding of no field")
    high = bool(Encoding(encoding).high)
    if value >> (32 if high else 8 * field.size):
        raise StateFileError(f"{key} ({field.name}): {value:#x} is too wide")
    if high:
        value = value << 32 | values.get(field.name, state[field.name]) & 0xFFFF_FFFF
    values[field.name] = value


def _number(text: object) -> int:
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise StateFileError(f"{text!r} is no number")
    try:
        value = text if isinstance(text, int) else int(text, 0)
    except ValueError as error:
        raise StateFileError(f"{text!r} is no number") from error
    if value < 0:
        raise StateFileError(f"{text!r} is negative")
    return value


def base_object(name: str) -> dict[str, Any]:
    """What fields hold that a state file does not name, in the form of a state file."""
    capabilities = profile(name)
    state = base_state(capabilities)
    fields = {
        f"{field.encoding:#06x}": hex(state[field.name])
        for field in BY_ENCODING.values()
        if field.exists(capabilities.features)
    }
    return {"profile": name, "fields": fields}
