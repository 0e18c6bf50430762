"""A stand-in for ``qemu-system-x86_64`` under qtest: our own unit and edu devices.

Started as ``python fake_qemu.py qemu-system-x86_64 ARGUMENTS``; answers the commands that the qtest
client sends. What it shows is that the client drives a machine right, not how QEMU behaves.
"""

from __future__ import annotations

import sys

from devices.models.edu import Edu
from pagetables.memory import PhysicalMemory
from vtd.fuzz.case import MEMORY
from vtd.fuzz.qemu import REGISTERS
from vtd.layouts.interrupt_entries import CompatibilityAddress, CompatibilityData
from vtd.unit.departures import QEMU
from vtd.unit.interrupts.outcome import Interrupt
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import Event, InterruptDelivered
from vtd.unit.unit import RemappingUnit

SIZES = {"l": 4, "q": 8}


class Machine:
    """Memory, a unit and the edu devices that the command line names."""

    def __init__(self, arguments: list[str]) -> None:
        devices = [text.split(",") for text in arguments if text.startswith(("edu", "intel"))]
        scalable = any("scalable-mode=on" in options for options in devices)
        first = any("fsts=on" in options for options in devices)
        profile = "qemu-scalable-first" if first else "qemu-scalable" if scalable else "qemu"
        self.memory = PhysicalMemory()
        for start, length in MEMORY:
            self.memory.add_region(start, length)
        options = Options(departures=QEMU)
        self.unit = RemappingUnit(PROFILES[profile], self.memory, options)
        self.unit.subscribe(trace)
        self.functions: dict[int, Edu] = {}
        for words in devices:
            place = [word[5:] for word in words if word.startswith("addr=")]
            if words[0] == "edu":
                slot, function = place[0].split(".")
                devfn = int(slot, 16) << 3 | int(function)
                edu = self.functions[devfn] = Edu((1 << 64) - 1)
                edu.connect(UnitPort(self.unit, self.memory, devfn))
        self.config = 0

    def answer(self, command: str, words: list[str]) -> str:
        """What follows OK."""
        numbers = [int(word, 0) for word in words[:2]]
        if command == "memset":
            self.memory.write(numbers[0], bytes([int(words[2], 0)]) * numbers[1])
        elif command == "write":
            self.memory.write(numbers[0], bytes.fromhex(words[2][2:]))
        elif command == "read":
            return "0x" + self.memory.read(*numbers).hex()
        elif command in ("outl", "inl"):
            return self.port(command, numbers)
        elif command == "clock_step":
            for edu in self.functions.values():
                edu.clock.advance(numbers[0])
        elif command[:-1] == "write":
            self.store(numbers[0], SIZES[command[-1]], numbers[1])
        else:
            return hex(self.load(numbers[0], SIZES[command[-1]]))
        return ""

    def port(self, command: str, numbers: list[int]) -> str:
        """The two ports of configuration mechanism 1."""
        if numbers[0] == 0xCF8:
            self.config = numbers[1]
            return ""
        space = self.functions[self.config >> 8 & 0xFF].config
        if command == "outl":
            space.write(self.config & 0xFC, 4, numbers[1])
        else:
            return hex(space.read(self.config & 0xFC, 4))
        return ""

    def load(self, address: int, size: int) -> int:
        return self.unit.read_register(address - REGISTERS, size)

    def store(self, address: int, size: int, value: int) -> None:
        for edu in self.functions.values():
            found = edu.bar_at(address)
            if found is not None:
                bar, offset = found
                bar.write(offset, size, value)
                return
        self.unit.write_register(address - REGISTERS, size, value)


def trace(event: Event) -> None:
    """Say what native message an interrupt request became."""
    if isinstance(event, InterruptDelivered) and isinstance(event.outcome, Interrupt):
        sent = event.outcome
        address = CompatibilityAddress.of(
            fee=0xFEE, dst=sent.destination, rh=sent.redirection_hint, dm=sent.destination_mode
        )
        data = CompatibilityData.of(v=sent.vector, dlm=sent.delivery_mode, tm=sent.trigger_mode)
        say(f"vtd_ir_remap_msi (addr 0x0, data 0x0) -> (addr {address:#x}, data {data:#x})")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Answer until the input ends."""
    if "--version" in arguments:
        say("QEMU emulator version 0.0 (a stand-in)")
        return
    machine = Machine(arguments)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "refuse":
            say("FAIL as asked")
            continue
        say(f"OK {machine.answer(command, words)}")


if __name__ == "__main__":
    main(sys.argv[1:])
