"""Memory type and snooping of a translated access (VT-d 3.10, 3.11, 11.4.12).

Values only: they cause no fault, and only devices in the processors' coherency domain heed the
memory type. Combinations of MTRR and PAT are those of the processor's page tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from devices.dma import NO_SNOOP, AddressType, Request
from pagetables.first_stage import FirstStagePage2M, FirstStagePage4K
from pagetables.second_stage import SecondStagePage4K
from pagetables.walk import Leaf
from vtd.layouts.entries import PasidEntry
from vtd.layouts.registers import (
    FixedRangeMtrr,
    MtrrCapability,
    MtrrDefaultType,
    VariableRangeMtrrBase,
    VariableRangeMtrrMask,
)
from vtd.unit.registers.register_file import RegisterFile
from vtd.unit.requests.target import Target
from vtd.unit.translation.lookup import lookup
from vtd.unit.translation.translate import Page, find_page, translation
from vtd.unit.unit import RemappingUnit


class MemoryType(IntEnum):
    """Memory types with the codes of PAT, EMT and MTRR; 2 and 3 are reserved."""

    UC = 0
    WC = 1
    WT = 4
    WP = 5
    WB = 6
    UC_MINUS = 7


class MemoryAttributes(NamedTuple):
    """How an access reaches memory."""

    memory_type: MemoryType | None
    """None where an entry holds a reserved code."""
    snoop: bool
    """Whether processor caches are snooped."""


UC, WC, WT, WP, WB, UC_MINUS = MemoryType

EFFECTIVE: Mapping[MemoryType | None, Mapping[MemoryType, MemoryType]] = {
    UC: {UC: UC, UC_MINUS: UC, WC: WC, WT: UC, WB: UC, WP: UC},
    WC: {UC: UC, UC_MINUS: WC, WC: WC, WT: UC, WB: WC, WP: UC},
    WT: {UC: UC, UC_MINUS: UC, WC: WC, WT: WT, WB: WT, WP: WP},
    WB: {UC: UC, UC_MINUS: UC, WC: WC, WT: WT, WB: WB, WP: WP},
    WP: {UC: UC, UC_MINUS: WC, WC: WC, WT: WT, WB: WP, WP: WP},
}
"""Effective type by MTRR (or EMT) type, then by PAT type."""


def attributes_of(unit: RemappingUnit, request: Request) -> MemoryAttributes:
    """Attributes that a request has; TranslationFault or WalkFault if an untranslated one faults.

    A walk for them sets accessed flags like any other, but no dirty flag. A translated request,
    which walks no page table, is write-back (4.2.5).
    """
    if request.address_type is AddressType.TRANSLATED:
        return MemoryAttributes(WB, not request.access & NO_SNOOP)
    target, privileged = lookup(unit.remapping, request)
    page = find_page(unit.remapping, target, request.address, privileged)
    no_snoop = bool(request.access & NO_SNOOP)
    return memory_attributes(unit.registers, target, page, no_snoop=no_snoop)


def memory_attributes(
    registers: RegisterFile, target: Target, page: Page, *, no_snoop: bool = False
) -> MemoryAttributes:
    """Attributes of an access to ``page`` (Tables 6, 8, 9); ``no_snoop`` is NS of the request."""
    *_, snooped, _ = translation(target, 0, page, 0)
    snoop = not no_snoop or snooped
    return MemoryAttributes(_memory_type(registers, target, page), snoop)


def _memory_type(registers: RegisterFile, target: Target, page: Page) -> MemoryType | None:
    entry = target.entry
    if not isinstance(entry, PasidEntry):
        return WB
    if entry.cd:
        return UC
    extended = _extended_type(page) if entry.emte else None
    physical, _, _, _, first, _, _ = page
    if first is None:  # pass-through has no leaf at all
        return WB if extended is None else _of_range(extended[0])
    if extended is None:
        below = mtrr_type(registers, physical)
    else:
        below = _of_range(extended[0])
        if extended[1]:
            return below
    pat = _of_pat(entry.pat >> 4 * _pat_index(first) & 0xF)
    return EFFECTIVE[below][pat] if below in EFFECTIVE and pat is not None else None


def _extended_type(page: Page) -> tuple[int, bool] | None:
    """EMT and IPAT of the second-stage leaf, if there is one."""
    _, _, _, _, _, second, _ = page
    if second is None:
        return None
    leaf = SecondStagePage4K(second[0])
    return int(leaf.emt), leaf.ipat


def _pat_index(leaf: Leaf) -> int:
    entry, shift, _, _, _ = leaf
    if shift == 12:
        small = FirstStagePage4K(entry)
        return small.pat << 2 | small.pcd << 1 | small.pwt
    large = FirstStagePage2M(entry)
    return large.pat << 2 | large.pcd << 1 | large.pwt


def _of_pat(code: int) -> MemoryType | None:
    return MemoryType(code) if code in MemoryType._value2member_map_ else None


def _of_range(code: int) -> MemoryType | None:
    """A type of EMT or an MTRR, of which none is UC- (9.8, 11.4.12.2)."""
    return MemoryType(code) if code in EFFECTIVE else None


def mtrr_type(registers: RegisterFile, address: int) -> MemoryType | None:
    """The type that the MTRRs of the unit give a physical address; UC while they are off.

    None for a reserved code, and for WC in a unit that reports no support for it (11.4.12.1).
    """
    capability, default = registers[MtrrCapability], registers[MtrrDefaultType]
    if not default.e:
        return UC
    found = _of_range(_mtrr_code(registers, capability, default, address))
    return None if found is WC and not capability.wc else found


def _mtrr_code(
    registers: RegisterFile, capability: MtrrCapability, default: MtrrDefaultType, address: int
) -> int:
    """The code of the range that counts (3.11.2); UC for overlaps that are undefined there."""
    if capability.fix and default.fe and address < 1 << 20:
        number, field = _fixed_range(address)
        return registers[FixedRangeMtrr, number] >> 8 * field & 0xFF
    types: set[int] = {
        registers[VariableRangeMtrrBase, number].type
        for number in range(capability.vcnt)
        if _in_variable_range(registers, number, address)
    }
    if not types:
        return default.type
    return types.pop() if len(types) == 1 else WT if types == {WT, WB} else UC


def _in_variable_range(registers: RegisterFile, number: int, address: int) -> bool:
    mask = registers[VariableRangeMtrrMask, number]
    base = registers[VariableRangeMtrrBase, number]
    return mask.v and address & mask.physmask == base.physbase & mask.physmask


def _fixed_range(address: int) -> tuple[int, int]:
    """Register and field of an address below 1 MiB: 64, 16 and 4 KiB a field."""
    if address < 0x8_0000:
        return 0, address >> 16
    if address < 0xC_0000:
        return 1 + (address - 0x8_0000 >> 17), address >> 14 & 7
    return 3 + (address - 0xC_0000 >> 15), address >> 12 & 7
