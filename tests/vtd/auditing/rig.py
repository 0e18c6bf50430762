"""One unit, its tables, its queue and its audits, in calls as short as a driver's mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pagetables.bits import BitRecord
from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from vtd.auditing.audit import Audit
from vtd.auditing.debt import Debt
from vtd.auditing.device_tlb_audit import DeviceTlbAudit
from vtd.auditing.page_request_audit import PageRequestAudit
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    HostPermissionGranularity,
    HostPermissionInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    IotlbInvalidateDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.entries import (
    AddressWidth,
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.registers import (
    ContextGranularity,
    GlobalCommand,
    InterruptRemappingTableAddress,
    IotlbGranularity,
    RootTableAddress,
    TranslationTableMode,
)
from vtd.software.queue_driver import QueueDriver
from vtd.unit.caching.policy import AGGRESSIVE, CachePolicy
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

ROOT, CONTEXTS, UPPER_CONTEXTS, DIRECTORY, PASIDS = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
STATUS, QUEUE, INTERRUPTS, PERMISSIONS, OTHER = 0x7000, 0x8000, 0xA000, 0xB000, 0xF000
TABLES, DATA, END = 0x10_0000, 0x40_0000, 0x400_0000
DEVICE, NEIGHBOUR = 0x10, 0x18
EVERYTHING = 0x7FFF_FFFF_FFFF_F000
FIRST, SECOND, NESTED = (
    PasidTranslationType.FIRST_STAGE,
    PasidTranslationType.SECOND_STAGE,
    PasidTranslationType.NESTED,
)
LEGACY, SCALABLE = "qemu", "xeon"


class Rig:
    """A unit of a profile, some of whose capabilities are others, in front of 64 MiB."""

    def __init__(
        self,
        profile: str = SCALABLE,
        *,
        cap: Mapping[str, int] | None = None,
        ecap: Mapping[str, int] | None = None,
        caches: CachePolicy = AGGRESSIVE,
    ) -> None:
        base = PROFILES[profile]
        self.capabilities = replace(
            base, cap=base.cap.replace(**cap or {}), ecap=base.ecap.replace(**ecap or {})
        )
        self.memory = PhysicalMemory()
        self.memory.add_region(0, END)
        self.scalable = "smts" in self.capabilities.features
        self.unit = RemappingUnit(self.capabilities, self.memory, Options(caches=caches))
        self.audit = Audit(self.unit)
        self.devices = DeviceTlbAudit(self.unit)
        self.page_requests = PageRequestAudit(self.unit)
        self.frames = FramePool(TABLES, DATA)
        self.queue = QueueDriver(self.unit, self.memory, QUEUE, STATUS, wide=self.scalable)
        self.command = GlobalCommand.of()

    @property
    def verdicts(self) -> list[str]:
        """What the audit of invalidations says, the window left out."""
        return [debt.title for debt in self.audit.findings]

    @property
    def silent(self) -> bool:
        """Whether no audit has anything to say."""
        found = [*self.audit.findings, *self.devices.findings, *self.page_requests.findings]
        return not found

    def the_debt(self) -> Debt:
        (debt,) = self.audit.findings
        return debt

    # Structures

    def second(self) -> TableBuilder:
        return TableBuilder(
            self.memory, second_stage_geometry(4, self.capabilities.implementation), self.frames
        )

    def first(self) -> TableBuilder:
        return TableBuilder(
            self.memory, first_stage_geometry(4, self.capabilities.implementation), self.frames
        )

    def put(self, address: int, record: BitRecord) -> None:
        self.memory.load(address, record.pack())

    def clear(self, address: int, size: int) -> None:
        self.memory.load(address, bytes(size))

    def root(self, contexts: int = CONTEXTS) -> None:
        if self.scalable:
            entry: BitRecord = ScalableRootEntry.of(
                lp=True, lctp=contexts, up=True, uctp=UPPER_CONTEXTS
            )
        else:
            entry = RootEntry.of(p=True, ctp=contexts)
        self.put(ROOT, entry)

    def context(
        self, source_id: int = DEVICE, *, directory: int = DIRECTORY, **fields: Any
    ) -> None:
        at = CONTEXTS + source_id * (32 if self.scalable else 16)
        if not self.scalable:
            entry = {"p": True, "aw": AddressWidth.AGAW_48, "did": 1, **fields}
            self.put(at, ContextEntry.of(**entry))
            return
        features = self.capabilities.features
        for name, feature in (("dte", "dt"), ("paside", "pasid"), ("pre", "prs")):
            fields.setdefault(name, feature in features)
        self.put(at, ScalableContextEntry.of(p=True, pasiddirptr=directory, **fields))

    def directory(self, pasids: int = PASIDS, at: int = DIRECTORY) -> None:
        self.put(at, PasidDirectoryEntry.of(p=True, smptblptr=pasids))

    def pasid(
        self,
        pasid: int,
        kind: PasidTranslationType,
        *,
        table: TableBuilder,
        below: TableBuilder | None = None,
        did: int = 1,
        **fields: Any,
    ) -> None:
        entry: dict[str, Any] = {"p": True, "pgtt": kind, "did": did}
        if "smpwcs" in self.capabilities.features:
            entry["pwsnp"] = True
        second = table if kind is SECOND else below
        if second is not None:
            entry |= {"ssptptr": second.root << 12, "aw": AddressWidth.AGAW_48}
        if kind is not SECOND:
            entry["fsptptr"] = table.root << 12
        self.put(PASIDS + pasid * 64, PasidEntry.of(**{**entry, **fields}))

    def pasid_record(self, pasid: int) -> PasidEntry:
        """A PASID entry as it is in memory."""
        return PasidEntry.unpack(self.memory.read(PASIDS + pasid * 64, 64))

    def start(self, *, interrupts: bool = False) -> None:
        """The root table set and everything on."""
        self.root()
        if self.scalable:
            self.directory()
        self.set_root()
        self.queue.enable()
        self.command = self.command.replace(qie=True)
        if interrupts:
            address = InterruptRemappingTableAddress.of(irta=INTERRUPTS, s=7)
            self.unit.write_register(0xB8, 8, address)
            self.unit.write_register(0x18, 4, self.command.replace(sirtp=True))
            self.command = self.command.replace(ire=True)
        self.command = self.command.replace(te=True)
        self.unit.write_register(0x18, 4, self.command)

    def set_root(self, root: int = ROOT) -> None:
        scalable = self.scalable
        mode = TranslationTableMode.SCALABLE if scalable else TranslationTableMode.LEGACY
        self.unit.write_register(0x20, 8, RootTableAddress.of(rta=root, ttm=mode))
        self.unit.write_register(0x18, 4, self.command.replace(srtp=True))

    def port(self, source_id: int = DEVICE) -> UnitPort:
        return UnitPort(self.unit, self.memory, source_id)

    # Invalidations

    def wait(self) -> None:
        assert self.queue.wait()

    def cc(self, source_id: int | None = DEVICE, did: int = 1, fm: int = 0) -> None:
        granularity = ContextGranularity.GLOBAL if source_id is None else ContextGranularity.DEVICE
        self.queue.submit(
            ContextCacheInvalidateDescriptor.of(g=granularity, did=did, sid=source_id or 0, fm=fm)
        )

    def pc(self, did: int | None = 1, pasid: int | None = None) -> None:
        granularity = PasidCacheGranularity.PASID_IN_DOMAIN
        if pasid is None:
            granularity = PasidCacheGranularity.DOMAIN
        if did is None:
            granularity = PasidCacheGranularity.GLOBAL
        self.queue.submit(
            PasidCacheInvalidateDescriptor.of(g=granularity, did=did or 0, pasid=pasid or 0)
        )

    def iotlb(
        self, did: int | None = 1, address: int | None = None, *, am: int = 0, ih: bool = False
    ) -> None:
        granularity = IotlbGranularity.PAGE_IN_DOMAIN
        if address is None:
            granularity = IotlbGranularity.DOMAIN
        if did is None:
            granularity = IotlbGranularity.GLOBAL
        self.queue.submit(
            IotlbInvalidateDescriptor.of(
                g=granularity, dr=True, dw=True, did=did or 0, addr=address or 0, am=am, ih=ih
            )
        )

    def pasid_iotlb(
        self, pasid: int, did: int = 1, address: int | None = None, *, am: int = 0, ih: bool = False
    ) -> None:
        granularity = PasidIotlbGranularity.PAGE_IN_PASID
        if address is None:
            granularity = PasidIotlbGranularity.PASID
        self.queue.submit(
            PasidIotlbInvalidateDescriptor.of(
                g=granularity, did=did, pasid=pasid, addr=address or 0, am=am, ih=ih
            )
        )

    def device_tlb(
        self, pasid: int | None = None, source_id: int = DEVICE, address: int | None = None
    ) -> None:
        fields: dict[str, int] = {"sid": source_id, "s": address is None}
        fields["addr"] = EVERYTHING if address is None else address
        if "dit" in self.capabilities.features:
            fields |= {"pfsid_3_0": source_id & 0xF, "pfsid_15_4": source_id & 0xFFF0}
        if pasid is None:
            self.queue.submit(DeviceTlbInvalidateDescriptor.of(**fields))
        else:
            self.queue.submit(PasidDeviceTlbInvalidateDescriptor.of(**fields, pasid=pasid))

    def permissions(self, did: int, address: int | None = None) -> None:
        granularity = HostPermissionGranularity.PAGE_IN_DOMAIN
        if address is None:
            granularity = HostPermissionGranularity.DOMAIN
        self.queue.submit(
            HostPermissionInvalidateDescriptor.of(
                g=granularity, hptdid=did, addr=address or 0, ih=3
            )
        )

    def iec(self, index: int | None = None, *, im: int = 0) -> None:
        granularity = InterruptGranularity.GLOBAL if index is None else InterruptGranularity.INDEX
        self.queue.submit(
            InterruptEntryCacheInvalidateDescriptor.of(g=granularity, iidx=index or 0, im=im)
        )


def leaf(rig: Rig, table: TableBuilder, address: int) -> tuple[int, int]:
    """Where the entry is that maps an address, and what it holds."""
    at = table.root << 12
    for shift in (39, 30, 21, 12):
        where = at + ((address >> shift & 511) << 3)
        entry = rig.memory.read_record(where, 8)
        if shift == 12 or entry & 0x80:
            break
        at = entry & (1 << 52) - 0x1000
    return where, entry


def legacy(*, did: int = 1, **cap: int) -> tuple[Rig, TableBuilder]:
    """A device in legacy mode that has used page 0."""
    rig = Rig(LEGACY, cap=cap)
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12, did=did)
    rig.start()
    assert rig.port().read(0, 4).ok
    return rig, table
