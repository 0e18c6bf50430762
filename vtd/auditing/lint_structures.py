"""The structures that a unit's table pointers lead to, against the rules for them.

VT-d 6.2.2.1, 6.2.3.1, 8.4 and 9. Every entry is looked at, whether or not a request has used it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from devices.dma import READ, WRITE, Request
from devices.source_id import SourceId
from pagetables.memory import BusError
from vtd.auditing.agreements import AGREEMENTS, FIRST, NESTED, SECOND, Use, of_context, of_pasid
from vtd.auditing.lint_rules import LintFinding, finding
from vtd.inspection.interrupt_table import list_entries
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    TranslationType,
)
from vtd.layouts.interrupt_entries import PostedIrte, SourceValidationType
from vtd.layouts.registers import GlobalStatus, TranslationTableMode
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.translation.remapping import Remapping, onlooker
from vtd.unit.translation.rules import reserved_pasid_bits
from vtd.unit.translation.translate import entry_for
from vtd.unit.unit import RemappingUnit

ENTRIES_PER_DIRECTORY_ENTRY = 64


def lint_structures(
    unit: RemappingUnit,
    reserved: Mapping[int, list[tuple[int, int]]] | None = None,
    *,
    off: GlobalStatus | None = None,
) -> list[LintFinding]:
    """What is wrong with the tables that a unit has been given.

    ``reserved``: the reserved memory of each source-id, as start and end. ``off``: by TES and IRES,
    what the unit did and does not any more, so that memory of its tables may have another use.
    """
    off = off or GlobalStatus()
    status = unit.registers[GlobalStatus]
    found: list[LintFinding] = []
    if (status.rtps or status.tes) and not off.tes:
        uses: list[Use] = []
        walker = _Walker(unit, found, uses)
        walker.walk()
        found += _domains(unit, uses)
        found += _reserved_memory(unit, walker.sources, reserved or {})
    if (status.irtps or status.ires) and not off.ires:
        found += _interrupts(unit)
    return found


class _Walker:
    """Root, context and PASID tables, entry after entry."""

    def __init__(self, unit: RemappingUnit, found: list[LintFinding], uses: list[Use]) -> None:
        self._unit = unit
        self._memory = unit.remapping.memory
        self._implementation = unit.remapping.implementation
        self._found = found
        self._uses = uses
        self.sources: set[int] = set()
        """Those that have a present context entry."""

    def walk(self) -> None:
        """All of it."""
        remapping = self._unit.remapping
        if remapping.mode is TranslationTableMode.LEGACY:
            self._legacy(remapping.root.rta)
        elif remapping.mode is TranslationTableMode.SCALABLE:
            self._scalable(remapping.root.rta)

    def _read(self, what: str, address: int, size: int) -> int | None:
        try:
            return self._memory.read_record(address, size)
        except BusError:
            self._found.append(finding("S03", f"{what} is not in memory", address=address))
            return None

    def _reserved(self, what: str, address: int, value: int, mask: int) -> bool:
        if value & mask:
            message = f"{what}: reserved bits {value & mask:#x} are set"
            self._found.append(finding("S01", message, address=address))
        return bool(value & mask)

    def _legacy(self, table: int) -> None:
        for bus in range(256):
            at = table + bus * 16
            data = self._read(f"root entry of bus {bus:02x}", at, 16)
            if data is None:
                return
            root = RootEntry(data)
            mask = RootEntry.reserved_mask(self._implementation)
            if root.p and not self._reserved(f"root entry of bus {bus:02x}", at, root, mask):
                for number in range(256):
                    if not self._legacy_context(bus << 8 | number, root.ctp + number * 16):
                        break

    def _legacy_context(self, source_id: int, at: int) -> bool:
        name = f"context entry of {SourceId(source_id)}"
        data = self._read(name, at, 16)
        if data is None:
            return False
        entry = ContextEntry(data)
        if not entry.p:
            return True
        self.sources.add(source_id)
        if self._reserved(name, at, entry, ContextEntry.reserved_mask(self._implementation)):
            return True
        if entry.tt is TranslationType.RESERVED_3:
            self._found.append(finding("S02", f"{name}: TT is reserved", address=at))
        elif entry.aw not in self._unit.capabilities.address_widths:
            message = f"{name}: the unit has no AW {int(entry.aw)}"
            self._found.append(finding("S02", message, address=at))
        self._uses.append(of_context(entry, at, name))
        return True

    def _scalable(self, table: int) -> None:
        for bus in range(256):
            at = table + bus * 16
            data = self._read(f"root entry of bus {bus:02x}", at, 16)
            if data is None:
                return
            root = ScalableRootEntry(data)
            reserved = ScalableRootEntry.reserved_mask(self._implementation)
            half = (1 << 64) - 1
            for present, contexts, first, mask in (
                (root.lp, root.lctp, 0, half),
                (root.up, root.uctp, 128, half << 64),
            ):
                name = f"root entry of bus {bus:02x}"
                if not present or self._reserved(name, at, root, reserved & mask):
                    continue
                for number in range(128):
                    source_id = bus << 8 | first | number
                    if not self._scalable_context(source_id, contexts + number * 32):
                        break

    def _scalable_context(self, source_id: int, at: int) -> bool:
        name = f"context entry of {SourceId(source_id)}"
        data = self._read(name, at, 32)
        if data is None:
            return False
        entry = ScalableContextEntry(data)
        if not entry.p:
            return True
        self.sources.add(source_id)
        mask = ScalableContextEntry.reserved_mask(self._implementation)
        if self._reserved(name, at, entry, mask):
            return True
        size = 1 << entry.pdts + 7
        for wrong, why in (
            (entry.pre and not entry.dte, "PRE without DTE"),
            (entry.eptr and not entry.paside, "EPTR without PASIDE"),
            (entry.rid_pasid >> 6 >= size, "RID_PASID beyond the PASID directory"),
        ):
            if wrong:
                self._found.append(finding("S02", f"{name}: {why}", address=at))
        for number in range(size):
            where = entry.pasiddirptr + number * 8
            data = self._read(f"PASID directory of {SourceId(source_id)}", where, 8)
            if data is None:
                break
            directory = PasidDirectoryEntry(data)
            what = f"PASID directory entry {number} of {SourceId(source_id)}"
            reserved = PasidDirectoryEntry.reserved_mask(self._implementation)
            if directory.p and not self._reserved(what, where, directory, reserved):
                first = number * ENTRIES_PER_DIRECTORY_ENTRY
                self._pasids(source_id, entry, first, directory.smptblptr)
        return True

    def _pasids(
        self, source_id: int, context: ScalableContextEntry, first: int, table: int
    ) -> None:
        for number in range(ENTRIES_PER_DIRECTORY_ENTRY):
            pasid, at = first + number, table + number * 64
            name = f"PASID entry {pasid:#x} of {SourceId(source_id)}"
            data = self._read(name, at, 64)
            if data is None:
                return
            entry = PasidEntry(data)
            mask = reserved_pasid_bits(self._unit.options.departures, self._implementation)
            if not entry.p or self._reserved(name, at, entry, mask):
                continue
            permitted = context.hpte and (context.eptr or pasid == context.rid_pasid)
            self._pasid(entry, at, pasid, name, permitted=permitted)

    def _pasid(self, entry: PasidEntry, at: int, pasid: int, name: str, *, permitted: bool) -> None:
        features, kind = self._unit.capabilities.features, entry.pgtt
        has_second, has_first = kind in (SECOND, NESTED), kind in (FIRST, NESTED)
        for wrong, why in (
            (_FEATURES.get(kind) not in features, f"the unit has no PGTT {int(kind)}"),
            (
                has_second and entry.aw not in self._unit.capabilities.address_widths,
                f"the unit has no AW {int(entry.aw)}",
            ),
            (has_first and entry.fspm > (1 if "fs5lp" in features else 0), "no such FSPM"),
        ):
            if wrong:
                self._found.append(finding("S02", f"{name}: {why}", address=at))
        self._uses.append(of_pasid(entry, at, name, pasid, permitted=permitted))


_FEATURES = {
    FIRST: "fsts",
    SECOND: "ssts",
    NESTED: "nest",
    PasidTranslationType.PASS_THROUGH: "pt",
}


def _domains(unit: RemappingUnit, uses: list[Use]) -> Iterator[LintFinding]:
    """6.2.2.1 and 6.2.3.1, pair by pair of entries that have something in common."""
    if unit.capabilities.cap.cm:
        for use in uses:
            if not use.domain_id:
                yield finding("D03", f"{use.name} has domain-id 0", address=use.address)
    for rule, key, value, what in AGREEMENTS:
        groups: dict[object, Use] = {}
        told: set[tuple[object, object]] = set()
        for use in uses:
            shared = key(use)
            if shared is None:
                continue
            first = groups.setdefault(shared, use)
            pair = shared, value(use)
            if value(first) != value(use) and pair not in told:
                told.add(pair)
                message = f"{use.name} and {first.name}: {what(use)}"
                yield finding(rule, message, address=use.address)


def _reserved_memory(
    unit: RemappingUnit, sources: set[int], reserved: Mapping[int, list[tuple[int, int]]]
) -> Iterator[LintFinding]:
    """8.4: every page of it leads to itself, for reading and writing."""
    tables = onlooker(unit.remapping)
    for source_id in sorted(sources & set(reserved)):
        for start, end in reserved[source_id]:
            address, wrong = start, ""
            while address < end and not wrong:
                size, wrong = _leads_to_itself(tables, source_id, address)
                if wrong:
                    name = f"reserved memory {start:#x} of {SourceId(source_id)}"
                    yield finding("R01", f"{name} at {address:#x}: {wrong}", address=address)
                address += size


def _leads_to_itself(tables: Remapping, source_id: int, address: int) -> tuple[int, str]:
    """Bytes up to the end of a page, and what is wrong with it; empty if nothing is."""
    size = 0x1000
    for access in (READ, WRITE):
        try:
            entry = entry_for(tables, Request(source_id, address, access, 1))
        except TranslationFault as fault:
            return size, f"fault {int(fault.reason):02X}h, {fault.reason.text}"
        if entry.physical != entry.address:
            return size, f"leads to {entry.physical + address - entry.address:#x}"
        size = (1 << entry.shift) - (address & (1 << entry.shift) - 1)
    return size, ""


def _interrupts(unit: RemappingUnit) -> Iterator[LintFinding]:
    """9.9 and 9.10."""
    memory, table = unit.remapping.memory, unit.interrupts.table
    for number, entry, _ in list_entries(unit.interrupts, memory):
        at = table.irta + number * 16
        name = f"interrupt-remapping entry {number}"
        reserved = entry & type(entry).reserved_mask(unit.remapping.implementation)
        misaligned = reserved >> 32 & 0x3F
        if isinstance(entry, PostedIrte) and misaligned:
            message = f"{name}: the descriptor is at {entry.descriptor_address | misaligned:#x}"
            yield finding("I02", message, address=at)
        elif reserved:
            yield finding("S01", f"{name}: reserved bits {reserved:#x} are set", address=at)
        if isinstance(entry, PostedIrte):
            try:
                memory.read_record(entry.descriptor_address, 64)
            except BusError:
                message = f"{name}: no memory at {entry.descriptor_address:#x}"
                yield finding("I02", message, address=at)
        if entry.svt is SourceValidationType.NONE:
            yield finding("I01", f"{name}: SVT = 00b", address=at)
