"""A slow oracle: a unit without caches, written for reading, that answers the steps of a case.

VT-d 3.4 to 3.9, 5.1, 7.2, 9 and Table 30, by bit numbers. It shares no code with the translation
path of the engine: no geometry, no records, no cache. Invalidations are nothing to it, which is
what makes it the judge of a unit that caches. Left out: ATS, page requests, posting, privileged
requests without a PASID entry that allows them, and descriptors other than status writes; steps
that need those are answered with None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vtd.fuzz.case import Case, Outcome, Step
from vtd.unit.registers.capabilities import Capabilities

READ, WRITE = 1, 2
PAGE = 4096


class Fault(Exception):  # noqa: N818 - the specification's word
    """A request is blocked for the reason with this number; not recorded where ``quiet``."""

    def __init__(self, reason: int, quiet: bool = False) -> None:
        super().__init__(hex(reason))
        self.reason = reason
        self.quiet = quiet


class _NoMemory(Exception):  # noqa: N818 - what a read met
    pass


class _Walked(NamedTuple):
    physical: int
    read: bool
    write: bool
    user: bool
    leaf: int
    """Address of the leaf entry, physical or guest physical."""


class _Tables(NamedTuple):
    """One stage of a translation."""

    first: bool
    levels: int
    root: int
    flags: int
    """Accessed flags to set; 0 for none."""
    dirty: int
    snooped: bool


class _Request(NamedTuple):
    source_id: int
    address: int
    write: bool
    pasid: int | None
    privileged: bool = False


class SlowUnit:
    """A unit and its memory as one case sees them."""

    def __init__(self, case: Case) -> None:
        self._unit: Capabilities = case.capabilities
        self._regions = case.memory
        self._devices = dict(case.devices)
        self._bytes: dict[int, bytearray] = {}
        self._registers: dict[int, int] = {}
        self._root = 0
        self._interrupt_table = 0
        self._command = 0
        self._records = [0] * case.capabilities.fault_records
        self._next_record = 0
        self._overflow = False
        self._head = 0
        self._steps: dict[str, Callable[[Step], Outcome]] = {
            "mem_write": self._mem_write,
            "mem_read": self._mem_read,
            "reg_write": self._reg_write,
            "reg_read": self._reg_read,
            "dma_read": self._dma_read,
            "dma_write": self._dma_write,
            "msi": self._msi,
        }

    def step(self, step: Step) -> Outcome:
        """What comes of a step; None where it only acts or is not modelled."""
        carry_out = self._steps.get(step["op"])
        return None if carry_out is None else carry_out(step)

    def _exists(self, address: int) -> bool:
        return any(start <= address < start + length for start, length in self._regions)

    def load(self, address: int, size: int) -> bytes:
        """Bytes of one page."""
        if not self._exists(address):
            raise _NoMemory
        page = self._bytes.get(address // PAGE)
        start = address % PAGE
        return bytes(size) if page is None else bytes(page[start : start + size])

    def store(self, address: int, data: bytes) -> None:
        """Store bytes, page by page."""
        while data:
            if not self._exists(address):
                raise _NoMemory
            start = address % PAGE
            part, data = data[: PAGE - start], data[PAGE - start :]
            page = self._bytes.setdefault(address // PAGE, bytearray(PAGE))
            page[start : start + len(part)] = part
            address += len(part)

    def _number(self, address: int, size: int) -> int:
        return int.from_bytes(self.load(address, size), "little")

    def _mem_write(self, step: Step) -> None:
        self.store(int(step["addr"], 0), bytes.fromhex(step["hex"]))

    def _mem_read(self, step: Step) -> Outcome:
        return self.load(int(step["addr"], 0), step["length"]).hex()

    def _reg_write(self, step: Step) -> None:
        offset, size, value = int(step["offset"], 0), step["size"], int(step["value"], 0)
        first_record = self._unit.fault_recording_offset
        if offset == 0x18:
            self._global_command(value)
        elif offset == 0x34:
            self._overflow &= not value & 1
        elif first_record <= offset < first_record + 16 * len(self._records):
            if offset % 16 + size == 16 and value >> (size * 8 - 1) & 1:
                self._records[(offset - first_record) // 16] &= ~(1 << 127)
        else:
            for byte in range(0, size, 4):
                self._registers[offset + byte] = value >> 8 * byte & 0xFFFF_FFFF
            if offset == 0x88:
                self._run_queue()

    def _global_command(self, value: int) -> None:
        if value >> 30 & 1:
            self._root = self._long(0x20)
        if value >> 24 & 1:
            self._interrupt_table = self._long(0xB8)
        if self._command >> 26 & 1 and not value >> 26 & 1:
            self._head = 0
        self._command = value
        if not (value >> 31 & 1 or value >> 25 & 1):
            self._next_record = 0
        self._run_queue()

    def _long(self, offset: int) -> int:
        return self._registers.get(offset, 0) | self._registers.get(offset + 4, 0) << 32

    def _run_queue(self) -> None:
        """Only wait descriptors matter: they store their status."""
        queue, tail = self._long(0x90), self._long(0x88) & 0x7FFF0
        size = 32 if queue >> 11 & 1 else 16
        if not self._command >> 26 & 1:
            return
        while self._head != tail:
            descriptor = self._number((queue >> 12 << 12) + self._head, 16)
            if descriptor & 0xF == 5 and descriptor >> 5 & 1:
                data = (descriptor >> 32 & 0xFFFF_FFFF).to_bytes(4, "little")
                self.store(descriptor >> 64 & ~3, data)
            self._head = (self._head + size) % (PAGE << (queue & 7))

    def _reg_read(self, step: Step) -> Outcome:
        offset, size, mask = int(step["offset"], 0), step["size"], int(step["mask"], 0)
        first_record = self._unit.fault_recording_offset
        if offset == 0x34:
            pending = any(record >> 127 for record in self._records)
            return (self._overflow | pending << 1) & mask
        if first_record <= offset < first_record + 16 * len(self._records):
            record = self._records[(offset - first_record) // 16]
            return record >> offset % 16 * 8 & (1 << 8 * size) - 1 & mask
        return None

    def _record(self, reason: int, source_id: int, information: int, write: bool) -> None:
        """7.2.1, with the fields that every reason has."""
        self._overflow |= bool(self._records[self._next_record] >> 127)
        if self._overflow:
            return
        self._records[self._next_record] = (
            1 << 127 | (not write) << 126 | reason << 96 | source_id << 64 | information
        )
        self._next_record = (self._next_record + 1) % len(self._records)

    def _fault_address(self, address: int) -> int:
        """11.4.7.6: bits at and above the largest address width read 0."""
        widths = [30 + 9 * int(code) for code in self._unit.address_widths]
        return address >> 12 << 12 & (1 << max(widths, default=64)) - 1

    def _dma_read(self, step: Step) -> Outcome:
        length = step["length"]
        physical = self._physical(step, write=False)
        if physical is None:
            return {"fault": True}
        try:
            return {"data": self.load(physical, length).hex()}
        except _NoMemory:
            return {"fault": True}

    def _dma_write(self, step: Step) -> Outcome:
        physical = self._physical(step, write=True)
        if physical is None:
            return {"fault": True}
        try:
            self.store(physical, bytes.fromhex(step["hex"]))
        except _NoMemory:
            return {"fault": True}
        return {"ok": True}

    def _physical(self, step: Step, *, write: bool) -> int | None:
        """Where a request leads; None if it is blocked."""
        pasid = None if "pasid" not in step else int(step["pasid"], 0)
        request = _Request(self._devices[step["device"]], int(step["iova"], 0), write, pasid)
        plain = pasid is None or not self._command >> 31 & 1
        if plain and 0xFEE0_0000 <= request.address < 0xFEF0_0000:
            shown = self._fault_address(request.address & ~0xFFF)
            self._record(0x29, request.source_id, shown, write=True)
            return None
        if not self._command >> 31 & 1:
            return request.address
        try:
            return self._translate(request)
        except Fault as fault:
            if not fault.quiet:
                address = self._fault_address(request.address)
                self._record(fault.reason, request.source_id, address, write)
            return None

    def _translate(self, request: _Request) -> int:
        mode = self._root >> 10 & 3
        features = self._unit.features
        if mode == 0:
            if request.pasid is not None:
                raise Fault(0x31)
            return self._legacy(request)
        if mode == 1 and "smts" in features:
            return self._scalable(request)
        raise Fault(0x33 if mode == 3 and "adms" in features else 0x30)

    def _has_reserved(self, value: int, *ranges: tuple[int, int]) -> bool:
        """Whether any of the bits ``high`` to ``low`` is set."""
        return any(value >> low & (1 << high - low + 1) - 1 for high, low in ranges if high >= low)

    def _legacy(self, request: _Request) -> int:
        """3.4.2, 9.1, 9.3."""
        unit, haw, features = self._unit, self._unit.host_address_width, self._unit.features
        root = self._entry((self._root >> 12 << 12) + (request.source_id >> 8) * 16, 16, 0x08)
        if not root & 1:
            raise Fault(0x01)
        if self._has_reserved(root, (11, 1), (63, haw), (127, 64)):
            raise Fault(0x0A)
        table = root & (1 << 64) - PAGE
        entry = self._entry(table + (request.source_id & 0xFF) * 16, 16, 0x09)
        quiet = bool(entry >> 1 & 1)
        if not entry & 1:
            raise Fault(0x02, quiet)
        reserved = ((11, 4), (63, haw), (71, 71), (87, 72 + unit.did_width), (127, 88))
        if self._has_reserved(entry, *reserved):
            raise Fault(0x0B, quiet)
        kind, width = entry >> 2 & 3, entry >> 64 & 7
        supported = (True, "dt" in features, "pt" in features, False)[kind]
        if not supported or width not in unit.address_widths:
            raise Fault(0x03, quiet)
        if kind == 2:
            if request.address >> min(haw, 30 + 9 * width):
                raise Fault(0x04, quiet)
            physical = request.address
        else:
            if request.address >> min(unit.max_guest_address_width, 30 + 9 * width):
                raise Fault(0x04, quiet)
            tables = _Tables(False, width + 2, entry & (1 << 64) - PAGE, 0, 0, True)
            denied = 0x05 if request.write else 0x06
            codes = _Codes(0x03, 0x07, denied, 0x0C)
            walked = self._walk(tables, request.address, codes, quiet)
            if not (walked.write if request.write else walked.read):
                raise Fault(denied, quiet)
            physical = walked.physical
        if 0xFEE0_0000 <= physical < 0xFEF0_0000:
            raise Fault(0x0E, quiet)
        return physical

    def _scalable(self, request: _Request) -> int:
        """3.4.3, 9.2, 9.4."""
        haw, features = self._unit.host_address_width, self._unit.features
        root = self._entry((self._root >> 12 << 12) + (request.source_id >> 8) * 16, 16, 0x38)
        half = root >> (64 if request.source_id & 0x80 else 0) & (1 << 64) - 1
        if not half & 1:
            raise Fault(0x39)
        if self._has_reserved(half, (11, 1), (63, haw)):
            raise Fault(0x3A)
        where = (half >> 12 << 12) + (request.source_id & 0x7F) * 32
        context = self._entry(where, 32, 0x40)
        quiet = bool(context >> 1 & 1)
        if not context & 1:
            raise Fault(0x41, quiet)
        optional = {2: "dt", 3: "pasid", 4: "prs", 5: "hpts", 6: "ptrs", 84: "rprivs"}
        reserved = [(8, 7), (63, haw), (255, 85)]
        reserved += [(bit, bit) for bit, name in optional.items() if name not in features]
        reserved += [] if "rps" in features else [(83, 64)]
        if self._has_reserved(context, *reserved):
            raise Fault(0x42, quiet)
        limit, rid_pasid = 1 << (context >> 9 & 7) + 13, context >> 64 & 0xFFFFF
        page_requests_alone = context >> 4 & 1 and not context >> 2 & 1
        pasid_translated_alone = context >> 6 & 1 and not context >> 3 & 1
        if page_requests_alone or pasid_translated_alone or rid_pasid >= limit:
            raise Fault(0x43, quiet)
        pasid = request.pasid
        if pasid is None:
            request = request._replace(pasid=rid_pasid, privileged=bool(context >> 84 & 1))
        else:
            if not context >> 3 & 1:
                raise Fault(0x45, quiet)
            if pasid >> self._unit.pasid_width:
                raise Fault(0x89, quiet)
            if pasid >= limit:
                raise Fault(0x46, quiet)
            if pasid == rid_pasid:
                raise Fault(0x48, quiet)
        return self._with_pasid(request, context)

    def _with_pasid(self, request: _Request, context: int) -> int:
        """9.5, 9.6."""
        haw, pasid = self._unit.host_address_width, request.pasid or 0
        quiet = bool(context >> 1 & 1)
        where = (context >> 12 << 12 & (1 << 64) - 1) + (pasid >> 6) * 8
        directory = self._entry(where, 8, 0x50)
        quiet |= bool(directory >> 1 & 1)
        if not directory & 1:
            raise Fault(0x51, quiet)
        if self._has_reserved(directory, (11, 2), (63, haw)):
            raise Fault(0x52, quiet)
        entry = self._entry((directory >> 12 << 12) + (pasid & 63) * 64, 64, 0x58)
        quiet |= bool(entry >> 1 & 1)
        if not entry & 1:
            raise Fault(0x59, quiet)
        if self._has_reserved(entry, *self._reserved_in_pasid_entry()):
            raise Fault(0x5A, quiet)
        return self._staged(request, entry, quiet)

    def _reserved_in_pasid_entry(self) -> list[tuple[int, int]]:
        haw, features = self._unit.host_address_width, self._unit.features
        fixed = [(5, 5), (11, 10), (86, 80), (95, 91), (129, 129), (139, 136), (255, 192)]
        fixed += [(267, 259), (511, 336), (63, haw), (79, 64 + self._unit.did_width)]
        fixed += [(191, 128 + haw)]
        optional = (
            ("ssts", (4, 2), (63, 12)),
            ("ssads", (9, 9)),
            ("smpwcs", (87, 87)),
            ("sc", (88, 88)),
            ("mts", (90, 89), (127, 96)),
            ("srs", (128, 128)),
            ("fsts", (132, 130), (191, 140)),
            ("eafs", (135, 135)),
            ("hpts", (258, 256), (335, 268)),
        )
        for name, *ranges in optional:
            if name not in features:
                fixed += ranges
        return fixed

    def _staged(self, request: _Request, entry: int, quiet: bool) -> int:
        """One or two stages of translation by PGTT (3.6 to 3.8)."""
        first, second, width = self._stages(entry, quiet)
        if request.privileged and not entry >> 128 & 1:
            raise Fault(0x5D, quiet)
        if first is not None:
            protected = bool(entry >> 132 & 1)
            stages = _Stages(first, second, width)
            return self._first_stage(request, stages, protected, quiet)
        if second is None:
            if request.address >> self._unit.host_address_width:
                raise Fault(0x83, quiet)
            self._judge(request, request.address, True, True, quiet)
            return request.address
        if request.address >> width:
            raise Fault(0x84, quiet)
        walked = self._walk(second, request.address, SECOND, quiet)
        self._judge(request, walked.physical, walked.read, walked.write, quiet)
        if request.write:
            self._flag(second, walked.leaf, second.dirty, (0x7C, 0x7D), quiet)
        return walked.physical

    def _stages(self, entry: int, quiet: bool) -> tuple[_Tables | None, _Tables | None, int]:
        """The tables of a PASID entry, and how wide second-stage input addresses are."""
        unit, features, kind = self._unit, self._unit.features, entry >> 6 & 7
        needed = {1: "fsts", 2: "ssts", 3: "nest", 4: "pt"}.get(kind)
        if needed not in features:
            raise Fault(0x5B, quiet)
        snooped = bool(entry >> 87 & 1)
        first = second = None
        width = unit.max_guest_address_width
        if kind in (2, 3):
            code = entry >> 2 & 7
            if code not in unit.address_widths:
                raise Fault(0x5B, quiet)
            flags = entry >> 9 & 1
            root = entry & (1 << 64) - PAGE
            second = _Tables(False, code + 2, root, flags << 8, flags << 9, snooped)
            width = min(width, 30 + 9 * code)
        if kind in (1, 3):
            mode = entry >> 130 & 3
            root = entry >> 128 & (1 << 64) - PAGE
            unsupported = mode > 1 or (mode == 1 and "fs5lp" not in features)
            if unsupported or (second is not None and root >> width):
                raise Fault(0x5B, quiet)
            flags = 1 << 5 | (entry >> 135 & 1) << 10
            first = _Tables(True, 4 + mode, root, flags, 1 << 6, snooped)
        return first, second, width

    def _judge(
        self, request: _Request, physical: int, readable: bool, writable: bool, quiet: bool
    ) -> None:
        if not (writable if request.write else readable):
            raise Fault(0x85 if request.write else 0x86, quiet)
        if 0xFEE0_0000 <= physical < 0xFEF0_0000:
            raise Fault(0x87, quiet)

    def _first_stage(
        self, request: _Request, stages: _Stages, write_protected: bool, quiet: bool
    ) -> int:
        first, second, width = stages
        top = request.address >> 12 + 9 * first.levels - 1
        if top not in (0, (1 << 65 - 12 - 9 * first.levels) - 1):
            raise Fault(0x80, quiet)
        walked = self._walk(first, request.address, FIRST, quiet, stages)
        writable = walked.write or (request.privileged and not write_protected)
        physical, readable = walked.physical, True
        inner = None
        if second is not None:
            if physical >> width:
                raise Fault(0x74, quiet)
            inner = self._walk(second, physical, SECOND, quiet)
            physical, readable = inner.physical, inner.read
            writable = writable and inner.write
        if not request.privileged and not walked.user:
            raise Fault(0x81, quiet)
        self._judge(request, physical, readable, writable, quiet)
        if request.write:
            self._flag(first, walked.leaf, first.dirty, (0x90, 0x91), quiet, stages)
            if second is not None and inner is not None:
                self._flag(second, inner.leaf, second.dirty, (0x7C, 0x7D), quiet)
        return physical

    def _walk(
        self,
        tables: _Tables,
        address: int,
        codes: _Codes,
        quiet: bool,
        stages: _Stages | None = None,
    ) -> _Walked:
        """3.6, 3.7: rights are ANDed over the levels."""
        table, read, write, user = tables.root, True, True, True
        for level in range(tables.levels, 0, -1):
            size = PAGE * 512 ** (level - 1)
            where = table + address // size % 512 * 8
            top = level == tables.levels
            try:
                entry = self._number(self._table_address(where, stages, top, quiet), 8)
            except _NoMemory:
                raise Fault(codes.top_unreadable if top else codes.unreadable, quiet) from None
            read, write = read and bool(entry & 1), write and bool(entry & 2)
            user = user and bool(entry & 4)
            if not read and (tables.first or not write):
                raise Fault(codes.not_present, quiet)
            page = level == 1 or (level < 4 and bool(entry & 0x80))
            if self._has_reserved(entry, *self._reserved_in_table(tables.first, level, page)):
                raise Fault(codes.reserved, quiet)
            failed = (0x90, 0x91) if tables.first else (0x7C, 0x7D)
            self._flag(tables, where, tables.flags, failed, quiet, stages)
            target = entry & (1 << 52) - PAGE
            if page:
                physical = target // size * size + address % size
                return _Walked(physical, read, write, user, where)
            table = target
        raise AssertionError("the last level always has a page")

    def _reserved_in_table(self, first: bool, level: int, page: bool) -> list[tuple[int, int]]:
        """9.7, 9.8."""
        haw, features = self._unit.host_address_width, self._unit.features
        reserved = [(51, haw)]
        if page:
            reserved.append((11 + 9 * (level - 1), 13 if first else 12))
            support = {(True, 3): "fs1gp", (False, 3): "sslps_1g", (False, 2): "sslps_2m"}
            needed = support.get((first, level))
            if needed is not None and needed not in features:
                reserved.append((7, 7))
        elif level >= 4:
            reserved.append((7, 7))
        if not first:
            reserved.append((62, 62))
            if not page or "sc" not in features:
                reserved.append((11, 11))
        return reserved

    def _table_address(self, where: int, stages: _Stages | None, top: bool, quiet: bool) -> int:
        """Where the entry at a guest physical address is (3.8)."""
        if stages is None or stages.second is None:
            return where
        if where >> stages.width:
            raise Fault(0x74, quiet)
        found = self._walk(stages.second, where, SECOND, quiet)
        if not found.read or (stages.second.flags and not found.write):
            raise Fault(0x75 if top else 0x76, quiet)
        return found.physical

    def _flag(
        self,
        tables: _Tables,
        where: int,
        flags: int,
        failed: tuple[int, int],
        quiet: bool,
        stages: _Stages | None = None,
    ) -> None:
        """3.6.2, 3.7.2: set flags in an entry, which dirties the page it is in (3.8)."""
        not_snooped, _ = failed
        second = None if stages is None else stages.second
        physical = where
        inner = None
        if second is not None:
            inner = self._walk(second, where, SECOND, quiet)
            physical = inner.physical
        entry = self._number(physical, 8)
        if entry & flags == flags:
            return
        if not tables.snooped:
            raise Fault(not_snooped, quiet)
        if second is not None and inner is not None:
            if not inner.write:
                raise Fault(0x77, quiet)
            self._flag(second, inner.leaf, second.dirty, (0x7C, 0x7D), quiet)
        self.store(physical, (entry | flags).to_bytes(8, "little"))

    def _entry(self, address: int, size: int, failed: int) -> int:
        try:
            return self._number(address, size)
        except _NoMemory:
            raise Fault(failed) from None

    def _msi(self, step: Step) -> Outcome:
        source_id = self._devices[step["device"]]
        address, data = int(step["address"], 0), int(step["data"], 0)
        enabled, features = self._command >> 25 & 1, self._unit.features
        required = "eimer" if enabled else "irreq"
        extended = self._interrupt_table >> 11 & 1
        refused = required in features and not (enabled and extended)
        if not refused and not (enabled and address >> 4 & 1):
            return None
        index = (address >> 5 & 0x7FFF) | (address >> 2 & 1) << 15
        try:
            if refused:
                raise Fault(0x2A if enabled else 0x2B)
            if address >> 3 & 1:
                if data >> 16:
                    raise Fault(0x20)
                index += data & 0xFFFF
            entry = self._interrupt_entry(index, source_id)
            if entry >> 15 & 1:
                return self._post(entry)
        except Fault as fault:
            if not fault.quiet:
                shown = 0 if fault.reason in (0x20, 0x2A, 0x2B) else (index & 0xFFFF) << 48
                self._record(fault.reason, source_id, shown, write=True)
            return {"blocked": True}
        return {"delivered": self._interrupt(entry >> 16 & 0xFF, entry, entry >> 32)}

    def _interrupt(self, vector: int, low: int, destination: int) -> dict[str, int]:
        """What a processor gets; ``low`` has the modes in bits 7 to 2, as an entry has them."""
        extended = self._interrupt_table >> 11 & 1
        return {
            "vector": vector,
            "delivery_mode": low >> 5 & 7,
            "trigger_mode": low >> 4 & (low >> 5 & 7 in (0, 1)),
            "dest_mode": low >> 2 & 1,
            "redirection_hint": low >> 3 & 1,
            "destination": destination & 0xFFFF_FFFF if extended else destination >> 8 & 0xFF,
        }

    def _post(self, entry: int) -> Outcome:
        """5.2.3, 9.11: the descriptor is read and written as a whole."""
        quiet, vector = bool(entry >> 1 & 1), entry >> 16 & 0xFF
        where = entry >> 96 << 32 | (entry >> 38 & 0x3FF_FFFF) << 6
        try:
            pending = self._number(where, 32)
            notify = self._number(where + 32, 32)
        except _NoMemory:
            raise Fault(0x27, quiet) from None
        reserved = [(15, 2), (31, 24), (255, 64)]
        if not self._interrupt_table >> 11 & 1:
            reserved += [(39, 32), (63, 48)]
        if self._has_reserved(notify, *reserved):
            raise Fault(0x28, quiet)
        outstanding, suppressed = notify & 1, notify >> 1 & 1
        due = not outstanding and (entry >> 14 & 1 or not suppressed)
        self.store(where, (pending | 1 << vector).to_bytes(32, "little"))
        self.store(where + 32, (notify | bool(due)).to_bytes(32, "little"))
        sent = self._interrupt(notify >> 16 & 0xFF, 0, notify >> 32) if due else None
        return {"posted": {"descriptor": where, "vector": vector, "notification": sent}}

    def _interrupt_entry(self, index: int, source_id: int) -> int:
        """5.1.4, 9.9, 9.10."""
        table = self._interrupt_table
        where = (table >> 12 << 12) + 16 * index
        if index >= 2 << (table & 0xF) or where >> self._unit.host_address_width:
            raise Fault(0x21)
        entry = self._entry(where, 16, 0x23)
        quiet = bool(entry >> 1 & 1)
        if not entry & 1:
            raise Fault(0x22, quiet)
        posted = bool(entry >> 15 & 1) and "pi" in self._unit.features
        if posted:
            beyond = 96 + max(self._unit.host_address_width - 32, 0)
            reserved = [(7, 2), (13, 12), (31, 24), (37, 32), (95, 84), (127, beyond)]
        else:
            reserved = [(14, 12), (15, 15), (31, 24), (127, 84)]
            if not table >> 11 & 1:
                reserved += [(39, 32), (63, 48)]
        check, mode = entry >> 82 & 3, entry >> 5 & 7
        reserved_mode = not posted and mode in (3, 6)
        sid = entry >> 64 & 0xFFFF
        ignored = (0, 4, 6, 7)[entry >> 80 & 3]
        matches = (
            True,
            not (sid ^ source_id) & ~ignored,
            sid >> 8 <= source_id >> 8 <= sid & 0xFF,
            True,
        )[check]
        if not matches:
            raise Fault(0x26, quiet)
        if self._has_reserved(entry, *reserved) or reserved_mode or check == 3:
            raise Fault(0x24, quiet)
        return entry


class _Codes(NamedTuple):
    """Fault reasons of a walk."""

    top_unreadable: int
    unreadable: int
    not_present: int
    reserved: int


FIRST = _Codes(0x73, 0x70, 0x71, 0x72)
SECOND = _Codes(0x7B, 0x78, 0x79, 0x7A)


class _Stages(NamedTuple):
    first: _Tables
    second: _Tables | None
    width: int
    """Guest physical address bits."""
