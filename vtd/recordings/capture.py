"""Captures of a running Linux: the memory, registers, DMAR table and PCI functions of one unit.

The format is described in ``tests/captures/FORMAT.md``. Left out: the event log and the recorded
outcomes, which :mod:`vtd.recordings.replay_capture` compares.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagetables.images import load_capture
from pagetables.memory import PhysicalMemory, TableMemory
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.table import Table
from vtd.layouts.registers import (
    FaultRecording,
    GlobalStatus,
    InterruptRemappingTableAddress,
    RootTableAddress,
)
from vtd.recordings.scenario import COMPRESSED, departures_of
from vtd.recordings.whole_file import read_whole
from vtd.software.registers import start
from vtd.unit.departures import QEMU, SPECIFICATION, Departures
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.unit import RemappingUnit

MANIFEST, FAULTS = "capture.json", "faults.json"
_RECORD = re.compile(r"FRCD\d+_LO")
NEEDED = ("VER", "CAP", "ECAP", "GSTS", "RTADDR", "IRTA")


class CaptureError(ValueError):
    """A capture that can't be used; the message names the file and the field."""


@dataclass(frozen=True)
class Capture:
    """A capture, read from its folder."""

    folder: Path
    capabilities: Capabilities
    registers: Mapping[str, int]
    """Register contents at the end, by mnemonic."""
    offsets: Mapping[str, int]
    memory: PhysicalMemory
    """The pages that a walk from any register touches."""
    dmar: Table
    pci: PciTree
    qemu: bool
    """Whether the unit was QEMU's, which departs from the specification in places."""
    departures: Departures
    """What the capture itself says that its unit departs in, fault compression included."""

    @classmethod
    def load(cls, folder: Path) -> Capture:
        """The capture in ``folder``; CaptureError or ImageError if any part of it is unusable."""
        path = folder / MANIFEST
        manifest = read_json(path)
        if not isinstance(manifest, dict):
            raise CaptureError(f"{path}: has to be an object")
        registers = _numbers(path, manifest, "registers")
        missing = [name for name in NEEDED if name not in registers]
        if missing:
            raise CaptureError(f"{path}: registers: {', '.join(missing)} missing")
        try:
            dmar = Table.parse((folder / "DMAR.bin").read_bytes())
            version, cap, ecap = (registers[name] for name in ("VER", "CAP", "ECAP"))
            width = dmar.header.host_address_width + 1
            capabilities = Capabilities.of(version, cap, ecap, width)
            for record, name in _LATCHED:
                record(registers[name])
            departures = departures_of(manifest)
            pci = parse_pci_tree(json.dumps(read_json(folder / "topology.json.gz")))
        except (OSError, ValueError) as error:
            raise CaptureError(f"{folder}: {error}") from error
        memory = PhysicalMemory()
        load_capture(memory, folder)
        offsets = _numbers(path, manifest, "register_offsets")
        qemu = "qemu" in manifest
        if qemu:
            departures |= COMPRESSED
        return cls(folder, capabilities, registers, offsets, memory, dmar, pci, qemu, departures)

    def fault_records(self) -> list[FaultRecording]:
        """The fault records that were read while it ran, or else what the registers hold."""
        path = self.folder / FAULTS
        if path.exists():
            try:
                listed = [(each["lo"], each["hi"]) for each in read_json(path)["frcd_records"]]
                return [FaultRecording(int(hi, 16) << 64 | int(lo, 16)) for lo, hi in listed]
            except (KeyError, TypeError, ValueError) as error:
                raise CaptureError(
                    f"{path}: frcd_records: lo and hi have to be hexadecimal"
                ) from error
        names = [name.removesuffix("_LO") for name in self.registers if _RECORD.fullmatch(name)]
        halves = (
            (self.registers[f"{each}_LO"], self.registers.get(f"{each}_HI", 0)) for each in names
        )
        records = (FaultRecording(high << 64 | low) for low, high in halves)
        return [each for each in records if each]

    def options(self, *, as_recorded: bool) -> Options:
        """Options of a unit that does what the recorded one did; all of QEMU's if it was that."""
        recorded = QEMU if as_recorded and self.qemu else SPECIFICATION
        return Options(departures=self.departures | recorded)

    def unit(self, options: Options, memory: TableMemory | None = None) -> RemappingUnit:
        """The unit as it stood at the end, with empty caches and a stopped queue.

        ``memory`` takes the place of the capture's own, such as a view that nothing changes.
        """
        unit = RemappingUnit(self.capabilities, memory or self.memory, options)
        status = GlobalStatus(self.registers["GSTS"])
        start(unit, status, self.registers["RTADDR"], self.registers["IRTA"])
        return unit


_LATCHED = (
    (GlobalStatus, "GSTS"),
    (RootTableAddress, "RTADDR"),
    (InterruptRemappingTableAddress, "IRTA"),
)


def read_json(path: Path) -> Any:
    """A JSON file, gzipped or not; CaptureError names it if it is none."""
    with _readable(path):
        return json.loads(read_whole(path))


def read_json_lines(path: Path) -> list[Any]:
    """A file with a JSON value on each line, gzipped or not; CaptureError names another one."""
    with _readable(path):
        return [json.loads(line) for line in read_whole(path).splitlines()]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise CaptureError(f"{path}: can't be read: {error}") from error


def _numbers(path: Path, manifest: dict[str, Any], field: str) -> dict[str, int]:
    """An object of hexadecimal strings, such as the registers."""
    try:
        return {name: int(text, 16) for name, text in manifest[field].items()}
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise CaptureError(f"{path}: {field}: has to hold hexadecimal numbers") from error
