"""The virtual processor descriptor: 64 KiB that monitor, PAL and processor share (SDM 11.7.1).

The layout is declared once; a :class:`Vpd` is a view of one in memory. Offsets are those of the
public headers of two monitors, which agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from construct import Array, Bytes, Int64ul, Struct

from pagetables.bits import BitRecord, Bits
from vtd.guest.bus import Memory, get_number, put_number
from vtd.guest.itanium.interrupts import VHPI_VALUES
from vtd.guest.itanium.registers import CONTROL_REGISTERS, Psr

VPD_SIZE = 0x1_0000
VPD_ALIGNMENT = 0x8000

LAYOUT = Struct(
    "vac" / Int64ul,
    "vdc" / Int64ul,
    "virt_env_vaddr" / Int64ul,
    "reserved_1" / Bytes(232),
    "vhpi" / Int64ul,
    "reserved_2" / Bytes(760),
    "vgr" / Array(16, Int64ul),
    "vbgr" / Array(16, Int64ul),
    "vnat" / Int64ul,
    "vbnat" / Int64ul,
    "vcpuid" / Array(5, Int64ul),
    "reserved_3" / Bytes(88),
    "vpsr" / Int64ul,
    "vpr" / Int64ul,
    "vrse_cfle" / Int64ul,
    "reserved_4" / Bytes(600),
    "vcr" / Array(128, Int64ul),
    "vrr" / Array(8, Int64ul),
    "reserved_5" / Bytes(28608),
    "vmm_avail" / Bytes(1024),
    "reserved_6" / Bytes(32768),
)


class Vac(BitRecord, width=64):
    """Virtualization acceleration control: what is served from the VPD without an intercept."""

    a_int = Bits(0)  # masks of virtual external interrupts
    a_from_int_cr = Bits(1)  # reads of interruption control registers
    a_to_int_cr = Bits(2)  # writes of them
    a_from_psr = Bits(3)
    a_from_cpuid = Bits(4)
    a_cover = Bits(5)
    a_bsw = Bits(6)


class Vdc(BitRecord, width=64):
    """Virtualization disable control: what reaches the processor's own resource."""

    d_vmsw = Bits(0)  # vmsw always intercepts, instead
    d_extint = Bits(1)  # control registers 65 to 71
    d_ibr_dbr = Bits(2)
    d_pmc = Bits(3)
    d_to_pmd = Bits(4)
    d_itm = Bits(5)


class VpdPart(NamedTuple):
    """One named part of the layout."""

    name: str
    offset: int
    size: int

    @property
    def reserved(self) -> bool:
        """Whether it has to be 0 when the VPD is created."""
        return self.name.startswith("reserved")


def _parts() -> Iterator[VpdPart]:
    offset = 0
    for part in LAYOUT.subcons:
        yield VpdPart(part.name, offset, part.sizeof())
        offset += part.sizeof()


PARTS = {part.name: part for part in _parts()}
"""Every part by name."""


class VpdError(ValueError):
    """Bytes that are no VPD."""


class Vpd:
    """The VPD at ``address`` in ``memory``; what is not there reads as all ones."""

    def __init__(self, memory: Memory, address: int) -> None:
        self._memory = memory
        self.address = address

    def read(self, name: str, index: int = 0) -> int:
        """A quadword of a part."""
        return get_number(self._memory, self.address + PARTS[name].offset + 8 * index, 8)

    def write(self, name: str, value: int, index: int = 0) -> None:
        """Store a quadword of a part."""
        put_number(self._memory, self.address + PARTS[name].offset + 8 * index, value, 8)

    @property
    def vac(self) -> Vac:
        """Accelerations."""
        return Vac(self.read("vac"))

    @property
    def vdc(self) -> Vdc:
        """Disables."""
        return Vdc(self.read("vdc"))

    @property
    def vpsr(self) -> Psr:
        """The virtual processor's PSR."""
        return Psr(self.read("vpsr"))

    @vpsr.setter
    def vpsr(self, value: int) -> None:
        self.write("vpsr", value)

    def cr(self, number: int) -> int:
        """A control register of the virtual processor."""
        return self.read("vcr", number)

    def set_cr(self, number: int, value: int) -> None:
        """Store a control register of the virtual processor."""
        self.write("vcr", value, number)

    def switch_bank(self, registers: list[int], bank: int, psr: Psr) -> Psr:
        """Put the other bank of r16 to r31 into ``registers``; the PSR after it."""
        if psr.bn != bank:
            here, there = ("vgr", "vbgr") if psr.bn else ("vbgr", "vgr")
            for number in range(16):
                self.write(here, registers[number], number)
                registers[number] = self.read(there, number)
        return psr.replace(bn=bank)


def parse_vpd(data: bytes) -> dict[str, int | list[int]]:
    """The fields of a VPD from a file, without reserved parts; VpdError says what else it is."""
    if len(data) != VPD_SIZE:
        kind = "cut: " if len(data) < VPD_SIZE else ""
        raise VpdError(f"{kind}{len(data)} bytes: a VPD has {VPD_SIZE}")
    parsed = LAYOUT.parse(data)
    if parsed.vac & Vac.RESERVED or parsed.vdc & Vdc.RESERVED:
        raise VpdError(
            f"vac {parsed.vac:#x}, vdc {parsed.vdc:#x}: no VPD, or one of an unknown revision: "
            f"only vac bits {_known(Vac)} and vdc bits {_known(Vdc)} are known"
        )
    if parsed.vpsr & Psr.RESERVED:
        raise VpdError(f"vpsr {parsed.vpsr:#x}: no VPD: reserved bits are set")
    return {
        name: value if isinstance(value, int) else list(value)
        for name, value in parsed.items()
        if name in PARTS and not isinstance(value, bytes)
    }


def _known(record: type[BitRecord]) -> str:
    return f"{max(bits.high for bits in record.FIELDS.values())}:0"


def remarks(data: bytes) -> Iterator[str]:
    """What is wrong with a VPD of the right form, as PAL or a monitor would find."""
    parsed = LAYOUT.parse(data)
    if Vac(parsed.vac).a_int and Vdc(parsed.vdc).d_extint:
        yield "a_int and d_extint exclude each other: PAL_VP_CREATE fails (11.7.4.4)"
    if parsed.virt_env_vaddr & 0xFFF:
        yield f"virt_env_vaddr {parsed.virt_env_vaddr:#x} is not 4 KiB aligned"
    if parsed.vhpi not in VHPI_VALUES:
        yield f"vhpi {parsed.vhpi:#x} stands for no interrupt"
    for number, value in enumerate(parsed.vcr):
        if value and number not in CONTROL_REGISTERS:
            yield f"vcr[{number}] is reserved and has {value:#x}"
    for part in PARTS.values():
        if part.reserved and data[part.offset : part.offset + part.size].strip(b"\0"):
            yield (
                f"bytes {part.offset} to {part.offset + part.size - 1} are reserved and not all 0: "
                "PAL may have used them"
            )
