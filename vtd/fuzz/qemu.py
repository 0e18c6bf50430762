"""QEMU's ``intel-iommu`` as a target, driven from outside over qtest with edu devices.

A q35 machine without a guest: tables go straight into its memory, registers are accessed where
they are, and each requester of a case is an edu device that reads or writes 8 bytes or sends its
message; the trace of QEMU's unit tells what interrupt that became. One machine runs many cases;
between two of them translation is switched off, everything is invalidated, and what the first wrote
is cleared. Left out: larger transfers, and requests with PASID, which no device of QEMU sends on
demand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from vtd.fuzz.case import DEVICES, MEMORY, Case, Outcome, Step
from vtd.fuzz.departures import RECORD
from vtd.fuzz.places import DATA, DATA_PAGES, SUPERPAGE
from vtd.fuzz.qtest import Qtest, QtestError, qemu_version
from vtd.fuzz.targets import TargetError
from vtd.layouts.registers import GlobalCommand
from vtd.recordings.outcomes import interrupt
from vtd.unit.interrupts.outcome import compatibility_interrupt
from vtd.unit.registers.capabilities import PROFILES

REGISTERS = 0xFED9_0000
BARS = 0xE000_0000
"""Where the BARs of the edu devices go, 1 MiB each."""
BUFFER = 0x4_0000
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
RAISE, ACKNOWLEDGE = 0x60, 0x64
MSI = 0x40
"""Where an edu device has its MSI capability."""
MSI_ENABLE = 1 << 16
REMAPPED = re.compile(r"vtd_ir_remap_msi \(.*\) -> \(addr (0x[0-9a-f]+), data (0x[0-9a-f]+)\)")
NANOSECONDS = 200_000_000
"""Simulated time that a transfer certainly takes."""
UNITS = {"qemu": "", "qemu-scalable": ",scalable-mode=on", "qemu-scalable-first": ",fsts=on"}
FUNCTIONS = 1 << 31 | 1 << 26 | 1 << 25 | 1 << 23
"""TE, QIE, IRE and CFI of GCMD_REG."""
TRANSLATION = 1 << 31
SCRATCH = 0x8_0000
"""Memory that no case uses."""
DATA_FRAMES = (*range(DATA, DATA + DATA_PAGES * 4096, 4096), SUPERPAGE, SUPERPAGE + 0x20_1000)


class QemuTarget:
    """QEMU with a unit of one profile, ``PREFIX@PROFILE``; both parts may be left out."""

    def __init__(self, argument: str = "") -> None:
        prefix, _, profile = argument.partition("@")
        profile = profile or "qemu"
        if profile not in UNITS:
            raise TargetError(f"qemu profile {profile!r}: not one of {', '.join(UNITS)}")
        self.name = f"qemu@{profile}"
        self._written: set[int] = set()
        self._recorded = False
        self.profiles = (profile,)
        first = ",scalable-mode=on" if profile == "qemu-scalable-first" else ""
        options = f"intel-iommu,intremap=on{first}{UNITS[profile]}"
        arguments = [
            "-M",
            "q35,kernel-irqchip=split",
            "-m",
            "64",
            "-nodefaults",
            "-device",
            options,
            "-trace",
            "enable=vtd_ir_remap_msi",
        ]
        for name, devfn in DEVICES.items():
            function = ",multifunction=on" if devfn % 8 == 0 else ""
            place = f"addr={devfn >> 3:x}.{devfn & 7}"
            arguments += ["-device", f"edu,id={name},{place},dma_mask=0xffffffffffffffff{function}"]
        try:
            self.version = qemu_version(prefix)
            self._qtest = Qtest(arguments, prefix)
        except QtestError as error:
            raise TargetError(f"{self.name}: {error}") from error
        try:
            self._prepare(profile)
        except QtestError as error:
            self.close()
            raise TargetError(f"{self.name}: {error}") from error
        except TargetError:
            self.close()
            raise

    def _prepare(self, profile: str) -> None:
        """Let the devices answer, and look whether the unit is the one that the cases are for."""
        self._places = {}
        for number, (name, devfn) in enumerate(DEVICES.items()):
            self._places[name] = BARS + (number << 20)
            self._qtest.enable_bar(devfn, self._places[name])
        self._check_unit(profile)

    def _check_unit(self, profile: str) -> None:
        unit = PROFILES[profile]
        for offset, expected in ((8, unit.cap), (16, unit.ecap)):
            found = self._read(REGISTERS + offset, 8)
            if found != expected:
                raise TargetError(
                    f"{self.name}: register {offset:#x} is {found:#x} and not {expected:#x}"
                )

    def run(self, case: Case) -> list[Outcome]:
        """The outcome of each step."""
        if case.memory != MEMORY or case.capabilities != PROFILES[self.profiles[0]]:
            raise TargetError(f"{self.name}: a case for another unit")
        try:
            self._reset()
            return [self._step(step) for step in case.steps]
        except QtestError as error:
            raise TargetError(f"{self.name}: {error}") from error

    def close(self) -> None:
        """End QEMU."""
        self._qtest.close()

    def _reset(self) -> None:
        """Everything off, nothing cached, no fault pending, memory zero."""
        lines = [f"memset {page << 12:#x} 0x1000 0x0" for page in sorted(self._written)]
        lines += [
            f"memset {DATA:#x} {DATA_PAGES * 4096:#x} 0x0",
            *(f"memset {page:#x} 0x1000 0x0" for page in DATA_FRAMES[DATA_PAGES:]),
        ]
        self._written.clear()
        self._recorded = False
        for command in (0, GlobalCommand.of(srtp=True), 0):
            lines += [
                f"writeq {REGISTERS + 0x20:#x} 0x0",
                f"writel {REGISTERS + 0x18:#x} {command:#x}",
            ]
        lines += [
            f"writel {REGISTERS + RECORD + 12:#x} {1 << 31:#x}",
            f"writel {REGISTERS + 0x34:#x} 0xffffffff",
            f"writeq {REGISTERS + 0x88:#x} 0x0",
        ]
        self._qtest.commands(lines)

    def _step(self, step: Step) -> Outcome:
        match step["op"]:
            case "mem_write":
                self._store(int(step["addr"], 0), bytes.fromhex(step["hex"]))
            case "reg_write":
                width = {4: "l", 8: "q"}[step["size"]]
                where = REGISTERS + int(step["offset"], 0)
                self._qtest.command(f"write{width}", hex(where), step["value"])
            case "reg_read":
                return self._reg_read(int(step["offset"], 0), step["size"], int(step["mask"], 0))
            case "dma_read" if "pasid" not in step and step["length"] == 8:
                return self._dma_read(step)
            case "dma_write" if "pasid" not in step and step["length"] == 8:
                return self._dma_write(step)
            case "msi":
                return self._msi(step)
        return None

    def _reg_read(self, offset: int, size: int, mask: int) -> int:
        """A register; the fault record reads 0 until the case has had a fault of its own."""
        if offset & ~15 == RECORD:
            self._recorded |= bool(self._read(REGISTERS + RECORD + 8, 8) >> 63)
            if not self._recorded:
                return 0
        return self._read(REGISTERS + offset, size) & mask

    def _read(self, address: int, size: int) -> int:
        return int(self._qtest.command({4: "readl", 8: "readq"}[size], hex(address)), 0)

    def _store(self, address: int, data: bytes) -> None:
        self._written.update(range(address >> 12, (address + len(data) - 1 >> 12) + 1))
        self._qtest.command("write", hex(address), hex(len(data)), "0x" + data.hex())

    def _dma_read(self, step: Step) -> Outcome:
        """The device can't be asked for its buffer: it is sent to memory, untranslated."""
        bar = self._places[step["device"]]
        with self._translation_off():
            pass  # what an earlier request left behind is gone, as it is before a write
        self._transfer(bar, int(step["iova"], 0), BUFFER, to_memory=0)
        self._untranslated(bar, BUFFER, SCRATCH, to_memory=1)
        if self._refused():
            return {"fault": True}
        data = self._load(SCRATCH)
        # What a device has for data that it did not get, also where FPD hides the fault.
        return None if data in (bytes(8), b"\xff" * 8) else {"data": data.hex()}

    def _dma_write(self, step: Step) -> Outcome:
        """The device can't say how a write ended: the data is looked for where it may be."""
        bar, data = self._places[step["device"]], bytes.fromhex(step["hex"])
        self._qtest.command("write", hex(SCRATCH), "0x8", "0x" + data.hex())
        self._untranslated(bar, SCRATCH, BUFFER, to_memory=0)
        self._transfer(bar, BUFFER, int(step["iova"], 0), to_memory=1)
        offset = int(step["iova"], 0) & 0xFFF
        places = [page + offset for page in DATA_FRAMES]
        found = self._qtest.commands([f"read {place:#x} 0x8" for place in places])
        if any(bytes.fromhex(text[2:]) == data for text in found):
            return {"ok": True}
        return {"fault": True} if self._refused() else None

    def _msi(self, step: Step) -> Outcome:
        """The device's own message is set up as the one of the step, and sent."""
        device, bar = DEVICES[step["device"]], self._places[step["device"]]
        address, data = int(step["address"], 0), int(step["data"], 0)
        if data >> 16:
            raise TargetError(f"{self.name}: an edu device has no data of more than 16 bits")
        for offset, value in (
            (4, address & 0xFFFF_FFFF),
            (8, address >> 32),
            (12, data),
            (0, MSI_ENABLE),
        ):
            self._qtest.config_write(0, device, MSI + offset, value)
        self._qtest.said.clear()
        self._qtest.commands([f"writel {bar + RAISE:#x} 0x1", f"writel {bar + ACKNOWLEDGE:#x} 0x1"])
        found = [match for match in map(REMAPPED.match, self._qtest.said) if match is not None]
        if not found:
            return interrupt(None)
        native, what = (int(text, 16) for text in found[-1].groups())
        return interrupt(compatibility_interrupt(native, what))

    def _refused(self) -> bool:
        """Whether a fault is pending, as a case clears it after each request."""
        return bool(self._read(REGISTERS + 0x34, 4) & 2)

    def _load(self, address: int) -> bytes:
        return bytes.fromhex(self._qtest.command("read", hex(address), "0x8")[2:])

    def _untranslated(self, bar: int, source: int, destination: int, *, to_memory: int) -> None:
        """A transfer with translation switched off for as long as it takes."""
        with self._translation_off():
            self._transfer(bar, source, destination, to_memory=to_memory)

    @contextmanager
    def _translation_off(self) -> Iterator[None]:
        """Translation switched off: caches are empty then, and no device stays passed through."""
        functions = self._read(REGISTERS + 0x1C, 4) & FUNCTIONS
        self._qtest.command("writel", hex(REGISTERS + 0x18), hex(functions & ~TRANSLATION))
        yield
        self._qtest.command("writel", hex(REGISTERS + 0x18), hex(functions))

    def _transfer(self, bar: int, source: int, destination: int, *, to_memory: int) -> None:
        self._qtest.commands(
            [
                f"writeq {bar + SOURCE:#x} {source:#x}",
                f"writeq {bar + DESTINATION:#x} {destination:#x}",
                f"writeq {bar + COUNT:#x} 0x8",
                f"writeq {bar + COMMAND:#x} {1 | to_memory << 1:#x}",
                f"clock_step {NANOSECONDS}",
            ]
        )
