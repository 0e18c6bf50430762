"""An image carried out by a machine: results are collected, a hang is named and passed over."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Protocol

from construct import Container

from vtd.conformance.devices import REACHES
from vtd.conformance.format import NO_DEVICE, REAL_MACHINE, Begin, Door, Kind, Status
from vtd.conformance.frames import Frames, Received
from vtd.conformance.image import DEBUG_CONSOLE, SERIAL, Image, KitError, Output
from vtd.conformance.pvh import kernel
from vtd.conformance.uefi import application

EDU, NVME, E1000E, IGB = "edu", "nvme", "e1000e", "igb"
SILENCE = 30.0
"""Seconds without a frame after which a machine hangs."""
STARTING = 120.0
"""Seconds up to the first one: firmware has the machine before."""


class Form(Enum):
    """How an image is given to a machine: name of the file, and what the image becomes."""

    MULTIBOOT = ("image", lambda image: image)
    UEFI = ("efi", application)
    PVH = ("elf", kernel)

    def __init__(self, placeholder: str, made: Callable[[bytes], bytes]) -> None:
        self.placeholder = "{" + placeholder + "}"
        self.file = f"kit.{placeholder}"
        self.made = made


class Machine(Protocol):
    """How to start a machine with an image."""

    @property
    def output(self) -> Output:
        """Where results come out."""
        ...

    @property
    def form(self) -> Form:
        """What starts the image."""
        ...

    def command(self, image: Path) -> list[str]:
        """The words of a command whose standard output has the results."""
        ...


@dataclass
class Collected:
    """What came of an image."""

    frames: list[Received] = field(default_factory=list)
    hung: list[int] = field(default_factory=list)
    """Cases at which the machine went silent."""
    complaint: str = ""
    """The last line of the machine monitor."""


def run(
    image: Image,
    machine: Machine,
    clock: Callable[[], float],
    *,
    silence: float = SILENCE,
    note: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Have a machine carry out an image; ``note`` hears of each case that has ended.

    A machine that goes silent in a case is ended and another one begins behind that; if that does
    not come as far as its first word, the cases that are left count as without a reset. KitError
    if no machine comes so far.
    """
    collected = Collected()
    first, total = 0, image.header.cases
    while True:
        with tempfile.TemporaryDirectory(prefix="vtd-kit-") as folder:
            command = command_in(Path(folder), image, machine, first)
            frames: list[Received] = []
            with closing(_one(command, collected, clock, silence, note)) as coming:
                for each in coming:
                    if each.kind is Kind.BEGIN:
                        check_machine(image, Begin.parse(each.data))
                    check_devices(image, [each])
                    frames.append(each)
        if not any(each.kind is Kind.BEGIN for each in frames):
            if collected.frames:
                collected.frames += _untried(range(first, total))
                return collected
            said = collected.complaint or "it said nothing"
            raise KitError(f"the machine did not start the image: {said}")
        collected.frames += frames
        if frames[-1].kind is Kind.END:
            return collected
        first = max((each.number + 1 for each in frames if each.kind is Kind.CASE), default=first)
        if first >= total or not total:
            return collected
        collected.hung.append(first)
        first += 1
        if first >= total:
            return collected


def _untried(numbers: range) -> list[Received]:
    """Cases for which the machine could not be started again."""
    return [Received(Kind.CASE, number, Status.NO_RESET, b"") for number in numbers]


def command_in(folder: Path, image: Image, machine: Machine, first: int = 0) -> list[str]:
    """The command that has a machine begin with case ``first`` of an image, kept in a folder."""
    told = image.told(machine.output, first)
    path = folder / machine.form.file
    path.write_bytes(machine.form.made(told))
    return machine.command(path)


def check_machine(image: Image, said: Container) -> None:
    """KitError if another image runs, or this one on another unit."""
    if said.digest != image.digest:
        raise KitError("the machine ran another image")
    for name, wanted in image.document.get("unit", {}).items():
        if said[name] != int(wanted, 0):
            raise KitError(
                f"the image is for another unit: {name} is {said[name]:#x}, not {wanted}"
            )


def check_devices(image: Image, frames: Sequence[Received]) -> None:
    """KitError if a device is not where the image has it."""
    for each in frames:
        if each.kind is Kind.PROBLEM and each.number == REAL_MACHINE:
            raise KitError("the image is for a virtual machine, and no hypervisor says this is one")
        if each.kind is Kind.PROBLEM and each.number >= NO_DEVICE:
            device = image.header.devices[each.number - NO_DEVICE]
            where = f"{device.bus:02x}:{device.devfn >> 3:02x}.{device.devfn & 7}"
            name = REACHES[device.driver].name
            raise KitError(f"the image is for another machine: no {name} device at {where}")


def _one(
    command: Sequence[str],
    collected: Collected,
    clock: Callable[[], float],
    silence: float,
    note: Callable[[int], None],
) -> Generator[Received, None, None]:
    """The frames of one start, up to the end or to silence."""
    with tempfile.TemporaryFile() as complaints, started(command, complaints) as process:
        assert process.stdout is not None
        frames, heard, patience = Frames(), clock(), max(silence, STARTING)
        while clock() - heard < patience:
            if not select.select([process.stdout], [], [], 0.5)[0]:
                continue
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            for each in frames.feed(data):
                heard, patience = clock(), silence
                if each.kind is Kind.CASE:
                    note(each.number)
                yield each
                if each.kind in (Kind.END, Kind.PROBLEM):
                    return
        complaints.seek(0)
        lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
        collected.complaint = lines[-1] if lines else collected.complaint


@contextmanager
def started(
    command: Sequence[str], complaints: IO[bytes], stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is gone afterwards; KitError if there is none."""
    try:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,  # Ctrl-C is for this process, which ends the other
        )
    except OSError as error:
        raise KitError(f"{command[0]}: {error.strerror}") from error
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it started itself


@dataclass(frozen=True)
class QemuMachine:
    """QEMU with its own unit and devices where cases expect requesters."""

    qemu: tuple[str, ...]
    unit: str = ""
    """Options of ``intel-iommu``."""
    memory: str = "8G"
    device: str = EDU
    """What does DMA, as QEMU names it."""
    firmware: Path | None = None
    """UEFI firmware in place of SeaBIOS."""
    more: tuple[str, ...] = ()
    output: Output = DEBUG_CONSOLE

    @property
    def form(self) -> Form:
        """What starts the image."""
        return Form.MULTIBOOT if self.firmware is None else Form.UEFI

    def command(self, image: Path) -> list[str]:
        """The command line."""
        options = ",".join(filter(None, ("intel-iommu", self.unit)))
        words = [
            *self.qemu,
            *("-machine", "q35,kernel-irqchip=split,accel=tcg", "-cpu", "max", "-m", self.memory),
            *("-nodefaults", "-display", "none", "-icount", "shift=10,sleep=off"),
            *("-device", options if "intremap" in options else f"{options},intremap=on"),
            *("-device", "pcie-root-port,id=one,addr=2,chassis=1"),
            *("-device", "pcie-root-port,id=two,addr=3,chassis=2"),
            *("-device", "pcie-pci-bridge,id=old,bus=two,addr=0"),
        ]
        for number, place in enumerate(PLACES):
            if self.device == EDU:
                words += ["-device", f"{EDU},{place},dma_mask=0xffffffffffffffff"]
            elif place.startswith("bus=old"):
                continue  # all others are PCI Express
            elif self.device != NVME:
                crowded = self.device == IGB and place in CROWDED
                words += ["-device", f"{E1000E if crowded else self.device},{place}"]
            else:
                disk = f"id=disk{number},if=none,snapshot=on,driver=raw,file.driver=null-co"
                words += ["-drive", f"{disk},file.size=1M,file.read-zeroes=on"]
                words += ["-device", f"{NVME},{place},serial=kit,drive=disk{number},cmb_size_mb=1"]
        if self.firmware is not None:
            words += ["-bios", str(self.firmware)]
        port = "-serial" if self.output.door is Door.UART else "-debugcon"
        return [*words, "-kernel", str(image), port, "stdio", *self.more]


PLACES = (
    "addr=4.0,multifunction=on",
    "addr=4.1",
    "addr=5.0",
    "addr=12.0",
    "bus=one,addr=0",
    "bus=old,addr=1",
)
"""Requesters of recorded and generated cases: 0020h, 0021h, 0028h, 0090h, 0100h and 0300h."""
CROWDED = ("addr=5.0", "addr=12.0")
"""Where the virtual functions of an igb would be in each other's way, or beyond the bus."""


@dataclass(frozen=True)
class CommandMachine:
    """Any machine monitor: a command in which the placeholder of a form stands for the image.

    Its standard output is the guest's first serial port.
    """

    words: tuple[str, ...]
    output: Output = SERIAL

    @property
    def form(self) -> Form:
        """What the command asks for."""
        asked = (each for each in Form if any(each.placeholder in word for word in self.words))
        return next(asked, Form.MULTIBOOT)

    def command(self, image: Path) -> list[str]:
        """The command line."""
        return [word.replace(self.form.placeholder, str(image)) for word in self.words]
