"""The cells of the matrix: machines, kernel command lines and checks, each with what it is about.

What Linux is known to do wrong on correct hardware is a :class:`~vtd.live.linux_faults.LinuxFault`;
a cell that meets one on some kernel expects it by name, and fails if it does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vtd.live.boot import Boot
from vtd.live.linux_faults import (
    ADDRESS_ZERO,
    ALIAS,
    HINT,
    RESERVED_AW,
    UNALIGNED,
    UNDRAINED,
    LinuxFault,
)
from vtd.live.machine_parts import (
    accelerator,
    bridge,
    cabled,
    copy_engine,
    disk,
    edu,
    network,
    reserved,
    unit,
    virtio_disk,
)
from vtd.live.xen import STRAY, possible

SECOND = {"smts": 1, "ssts": 1}
THREE_LEVELS = {"sagaw": 2, "mgaw": 38}
NARROW = "address_bits = 39\n"
NO_QUEUE = {"qi": 0, "dt": 0, "pds": 0}
CHECKS = ("units", "nvme", "filesystem", "rebind", "rescan", "reset", "domain_types", "vfio")
REMAPPED = ("units", "nvme", "rebind", "vfio", "provoke")
"""Checks where interrupts are remapped."""
STRICT = "iommu.strict=1"
SCALABLE = "intel_iommu=on,sm_on"
SECOND_STAGE = unit("qemu", SECOND)
FIRST_STAGE = unit("qemu-scalable-first", {"ssts": 1})
DEVICES = disk() + edu() + edu("00:07.0")
BEHIND_BRIDGE = bridge("pcie_to_pci") + disk() + edu("above/04.0") + edu("00:07.0")
WITH_ATS = bridge("root_port") + disk("above/00.0", "ats = true\n") + edu() + edu("00:07.0")


@dataclass(frozen=True)
class Cell:
    """One row of the matrix."""

    name: str
    about: str
    boot: Boot
    linux_faults: Mapping[str, LinuxFault]
    """By the beginning of the release, such as 6.1."""
    noticed: bool = False
    """A negative control: something has to be found."""
    certain: bool = True
    """Whether the fault of a kernel shows in every boot."""
    kit: int = 0
    """Instead of a kernel, the conformance kit: so many cases of each property."""

    def expected(self, release: str) -> LinuxFault | None:
        """What this kernel is known to do wrong here."""
        found = (fault for start, fault in self.linux_faults.items() if _is(release, start))
        return next(found, None)


def _is(release: str, start: str) -> bool:
    return start in ("*", release) or release.startswith((f"{start}.", f"{start}-"))


def _cell(
    name: str,
    about: str,
    machine: str,
    *,
    expect: Mapping[str, LinuxFault] | None = None,
    checks: tuple[str, ...] = CHECKS,
    caches: str = "aggressive",
    **options: Any,
) -> Cell:
    return Cell(name, about, Boot(machine, checks, caches=caches, **options), expect or {})


LEGACY = (
    _cell("legacy48-strict", "4 levels", unit() + DEVICES, append=STRICT),
    _cell("legacy48-lazy", "4 levels, flush queues", unit() + DEVICES),
    _cell(
        "copy-engine",
        "I/OAT behind a DMA domain",
        unit() + DEVICES + copy_engine(),
        checks=("units", "nvme", "ioat"),
        append=STRICT,
    ),
    _cell(
        "virtio",
        "a virtio disk with VIRTIO_F_ACCESS_PLATFORM",
        unit() + DEVICES + virtio_disk(),
        checks=("units", "nvme", "virtio"),
        append=STRICT,
    ),
    _cell(
        "virtio-scalable",
        "the same in scalable mode, with a device-TLB",
        SECOND_STAGE
        + disk()
        + edu()
        + bridge("root_port")
        + virtio_disk("above/00.0", "ats = true\n"),
        checks=("units", "nvme", "virtio"),
        append=SCALABLE,
    ),
    _cell(
        "legacy39-strict", "3 levels", NARROW + unit("qemu", THREE_LEVELS) + DEVICES, append=STRICT
    ),
    _cell("legacy39-lazy", "3 levels, flush queues", NARROW + unit("qemu", THREE_LEVELS) + DEVICES),
    _cell("caches-default", "the default policy", unit() + DEVICES, caches="default"),
    _cell("caches-off", "no caches at all", unit() + DEVICES, caches="off"),
    _cell(
        "caching-mode",
        "CM = 1: what is not present is cached too",
        unit("qemu", {"cm": 1}) + DEVICES,
    ),
    _cell("pass-through", "identity domains", unit() + DEVICES, append="iommu=pt"),
)
"""Legacy mode, in each form of caches and tables."""
STAGES = (
    _cell(
        "scalable-second", "PASID entries, second stage", SECOND_STAGE + DEVICES, append=SCALABLE
    ),
    _cell(
        "scalable-first",
        "PASID entries, first stage, second for VFIO",
        FIRST_STAGE + DEVICES,
        append=f"{SCALABLE} {STRICT}",
    ),
    _cell(
        "scalable-first-only",
        "first stage for VFIO too, AW not looked at where it is reserved",
        unit("qemu-scalable-first") + DEVICES,
        append=f"{SCALABLE} {STRICT}",
        departures=("ignore_aw_without_ssts",),
        expect={"6.1": UNALIGNED},
    ),
    _cell(
        "scalable-pass-through",
        "PGTT pass-through",
        SECOND_STAGE + DEVICES,
        append=f"{SCALABLE} iommu=pt",
    ),
    _cell(
        "first-without-second",
        "SSTS = 0",
        unit("qemu-scalable-first") + DEVICES,
        append=SCALABLE,
        checks=("units", "nvme", "vfio"),
        expect={"*": RESERVED_AW},
    ),
)
"""Scalable mode, in each form of PASID entries."""
FEATURES = (
    _cell(
        "xeon",
        "all features of a server",
        unit("xeon", remapping=True) + DEVICES,
        append=SCALABLE,
        interrupts_remapped=True,
    ),
    _cell("client", "a client's unit: not coherent", unit("client") + DEVICES),
    _cell("no-queue", "register-based invalidation", unit("qemu", NO_QUEUE) + DEVICES),
    _cell(
        "no-queue-small-mask",
        "register-based invalidation of 16 pages at most",
        unit("qemu", {**NO_QUEUE, "mamv": 4}) + DEVICES,
        checks=("units", "vfio"),
        expect={"7": HINT},
    ),
    _cell(
        "no-queue-caching-mode",
        "register-based invalidation, what is not present is cached too",
        unit("qemu", {**NO_QUEUE, "cm": 1, "mamv": 9}) + DEVICES,
        checks=("units", "vfio"),
        expect={"*": ADDRESS_ZERO},
    ),
    _cell(
        "no-psi", "no page-selective invalidation", unit("qemu", {"psi": 0, "mamv": 0}) + DEVICES
    ),
    _cell("small-pages", "4 KiB pages only", unit("qemu", {"sslps": 0}) + DEVICES),
    _cell("not-coherent", "C = 0: software flushes its caches", unit("qemu", {"c": 0}) + DEVICES),
)
"""Units with much, or with little."""
TOPOLOGIES = (
    _cell(
        "two-units",
        "one unit by scope, one for all else",
        unit(devices=("00:06.0",)) + unit(base=0xFD01_0000) + DEVICES,
        checks=("units 2", *CHECKS[1:]),
    ),
    _cell(
        "root-port",
        "an edu device behind a root port",
        unit() + bridge("root_port") + disk() + edu("above/00.0") + edu("00:07.0"),
    ),
    _cell("pci-bridge", "an edu device behind a PCIe-to-PCI bridge", unit() + BEHIND_BRIDGE),
    _cell(
        "pci-bridge-scalable",
        "the same in scalable mode",
        SECOND_STAGE + BEHIND_BRIDGE,
        append=SCALABLE,
        expect={"7": ALIAS},
    ),
    _cell("ats", "a disk with a device-TLB", unit() + WITH_ATS),
    _cell("ats-scalable", "the same in scalable mode", SECOND_STAGE + WITH_ATS, append=SCALABLE),
)
"""More than one unit, and devices behind bridges and device-TLBs."""
INTERRUPTS = (
    _cell(
        "interrupts-xapic",
        "interrupt remapping, xAPIC",
        unit(remapping=True) + DEVICES,
        checks=("remapping xapic", *REMAPPED),
        interrupts_remapped=True,
    ),
    _cell(
        "interrupts-x2apic",
        "interrupt remapping, x2APIC",
        unit("qemu", {"eim": 1}, remapping=True) + DEVICES,
        checks=("remapping x2apic", *REMAPPED),
        cpu="qemu64,+x2apic",
        interrupts_remapped=True,
    ),
    _cell(
        "interrupts-scalable",
        "interrupt remapping beside PASID entries",
        unit("qemu-scalable", remapping=True) + DEVICES,
        append=SCALABLE,
        checks=("remapping xapic", *REMAPPED),
        interrupts_remapped=True,
    ),
    _cell(
        "eventfds",
        "QEMU keeps MSI and MSI-X",
        unit() + DEVICES,
        checks=("units", "nvme", "rebind", "vfio"),
        eventfds=True,
    ),
    _cell("intx", "the pin of an edu device", unit() + DEVICES, checks=("units", "intx")),
)
"""How interrupts arrive."""
NETWORK = (
    _cell(
        "network",
        "an 82576 and its driver's self-tests",
        unit() + DEVICES + network(),
        checks=("units", "network igb", "ethtool igb"),
        append=STRICT,
    ),
    _cell(
        "network-scalable",
        "the same in scalable mode",
        FIRST_STAGE + DEVICES + network(),
        checks=("units", "network igb"),
        append=f"{SCALABLE} {STRICT}",
    ),
    _cell(
        "network-virtual",
        "a virtual function by itself",
        unit() + DEVICES + network(more="vfs = 1\n", driven=True),
        checks=("units", "network igbvf"),
    ),
    _cell(
        "network-tcp",
        "64 MiB of TCP from one 82576 to another",
        unit() + DEVICES + cabled("00:08.0") + cabled("00:0a.0"),
        checks=("units", "network_tcp"),
        append=STRICT,
    ),
)
"""The network controller."""
USES = (
    _cell(
        "disk-virtual",
        "a virtual function of a disk, given its queues by the physical one",
        unit() + edu() + edu("00:07.0") + disk(more="vfs = 1\n", vfs=2),
        checks=("units", "nvme", "nvme_virtual"),
        append=f"{STRICT} nvme_core.multipath=N",
    ),
    _cell(
        "power-cut",
        "the power fails while a disk is written",
        unit() + DEVICES,
        checks=("units", "write_until_cut"),
        next_checks=("units", "after_cut", "nvme every"),
        power_cut=True,
    ),
    _cell(
        "sva",
        "processes share their addresses with an accelerator",
        unit("xeon", remapping=True) + DEVICES + accelerator(),
        append=f"{SCALABLE} setcpuid=movdir64b",
        checks=("units", "nvme", "sva"),
        interrupts_remapped=True,
        expect={"7.2": UNDRAINED},
    ),
    _cell(
        "collect",
        "vtd collect as root and as an ordinary user",
        unit("xeon", remapping=True)
        + reserved("00:07.0")
        + bridge("root_port")
        + DEVICES
        + network("above/00.0"),
        append=SCALABLE,
        checks=("units", "nvme", "collect"),
        interrupts_remapped=True,
    ),
)
"""What else a machine is used for."""
TAKEOVERS = (
    _cell(
        "suspend",
        "units saved and programmed again",
        unit() + DEVICES,
        checks=("units", "nvme", "suspend", "vfio"),
        append="no_console_suspend",
    ),
    _cell(
        "suspend-scalable",
        "the same in scalable mode",
        SECOND_STAGE + DEVICES,
        checks=("units", "nvme", "suspend", "vfio"),
        append=f"{SCALABLE} no_console_suspend",
    ),
    _cell(
        "kexec",
        "another kernel takes over",
        unit() + DEVICES,
        checks=("units", "nvme", "kexec"),
        next_checks=("units", "nvme", "filesystem"),
    ),
    _cell(
        "kdump",
        "a crash kernel finds translation on",
        unit() + DEVICES,
        checks=("units", "nvme", "kdump"),
        next_checks=("crash_kernel", "units", "nvme"),
    ),
    _cell(
        "kdump-scalable",
        "a crash kernel finds translation on",
        SECOND_STAGE + DEVICES,
        checks=("units", "nvme", "kdump"),
        next_checks=("crash_kernel", "units", "nvme"),
        append=SCALABLE,
    ),
)
"""Units that are programmed again."""
COUNTERS = _cell(
    "counters",
    "performance monitoring by perf",
    unit("xeon", remapping=True) + DEVICES,
    append=SCALABLE,
    checks=("units", "nvme", "counters"),
    interrupts_remapped=True,
)
CELLS: tuple[Cell, ...] = (
    *(*LEGACY, *STAGES, *FEATURES, *TOPOLOGIES, *INTERRUPTS, *NETWORK, *USES, *TAKEOVERS),
    COUNTERS,
)
"""All but the negative controls."""
CONTROLS = {
    "no-page-invalidation": "legacy48-strict",
    "no-domain-invalidation": "legacy48-lazy",
    "no-context-invalidation": "legacy48-strict",
    "no-pasid-invalidation": "scalable-second",
    "no-interrupt-invalidation": "interrupts-xapic",
    "no-write-check": "legacy48-strict",
    "wrong-entry": "legacy48-strict",
    "large-page-start": "caches-default",
    "wrong-fault-reason": "legacy48-strict",
    "wrong-fault-source": "legacy48-strict",
    "wrong-fault-address": "legacy48-strict",
    "no-fault-record": "legacy48-strict",
    "no-fault-event": "legacy48-strict",
    "faults-stay": "legacy48-strict",
    "no-wait-status": "legacy48-strict",
    "no-translation-status": "legacy48-strict",
    "interrupts-pass": "interrupts-xapic",
}
"""For each defect, the cell that has to notice it."""
_REATTACHED = dict.fromkeys(("no-context-invalidation", "no-pasid-invalidation"), ("domain_types",))
"""Further checks of what only a device shows that changes its domain."""


def controls(by_name: Mapping[str, Cell]) -> Iterator[Cell]:
    """Cells with a broken unit."""
    for defect, name in CONTROLS.items():
        cell = by_name[name]
        wanted = ("units", "vfio", "provoke", *_REATTACHED.get(defect, ()))
        checks = tuple(each for each in cell.boot.checks if each in wanted or " " in each)
        boot = replace(cell.boot, defects=(defect,), checks=checks, silence=90, seconds=600)
        yield replace(
            cell, name=f"broken:{defect}", about=f"{name} with a defect", boot=boot, noticed=True
        )


KIT_CASES = 25
KIT_PLACES = ("00:04.0", "00:04.1", "00:05.0", "00:12.0")
KIT_DEVICES = {
    "edu": "".join(map(edu, KIT_PLACES)),
    "82576": "".join(network(place, total_vfs=1, first_vf_offset=16) for place in KIT_PLACES),
    "ioat": "".join(map(copy_engine, KIT_PLACES)),
}
"""What does DMA."""
KIT_UNIT = unit(remapping=True)
KIT_UNITS = {
    "kit": (KIT_UNIT, "edu", "legacy mode"),
    "kit-second": (unit("qemu-scalable", remapping=True), "edu", "PASID entries, second stage"),
    "kit-first": (unit("qemu-scalable-first", remapping=True), "edu", "PASID entries, first stage"),
    "kit-82576": (KIT_UNIT, "82576", "legacy mode, by network controllers"),
    "kit-ioat": (KIT_UNIT, "ioat", "legacy mode, by copy engines"),
}
KIT_CONTROLS = (
    *("no-page-invalidation", "no-domain-invalidation", "no-context-invalidation"),
    *("no-interrupt-invalidation", "no-write-check", "wrong-entry", "wrong-fault-reason"),
    *("wrong-fault-source", "no-fault-record", "no-wait-status", "interrupts-pass"),
)
"""Defects that the kit notices too."""


def kit_cells() -> Iterator[Cell]:
    """The conformance kit on units of each mode, and on broken ones."""
    for name, (of, devices, about) in KIT_UNITS.items():
        boot = Boot(of + KIT_DEVICES[devices], (), caches="aggressive", silence=30)
        yield Cell(name, f"the conformance kit: {about}", boot, {}, kit=KIT_CASES)
    machine, about = KIT_UNIT + KIT_DEVICES["edu"], "the conformance kit on a unit with a defect"
    for defect in KIT_CONTROLS:
        boot = Boot(machine, (), caches="aggressive", silence=30, defects=(defect,))
        yield Cell(f"broken-kit:{defect}", about, boot, {}, noticed=True, kit=KIT_CASES)


def all_cells() -> dict[str, Cell]:
    """Every cell by name, negative controls last."""
    known = {cell.name: cell for cell in CELLS}
    return known | {cell.name: cell for cell in (*controls(known), *kit_cells())}


def under_xen(known: Mapping[str, Cell]) -> dict[str, Cell]:
    """The cells of which Linux can check something as a domain of Xen, which has the units."""
    cells = {}
    for name, cell in known.items():
        checks = possible(cell.boot.checks)
        if checks and not (cell.noticed or cell.boot.interrupts_remapped or cell.boot.next_checks):
            boot = replace(cell.boot, checks=(*checks, STRAY))
            cells[name] = replace(cell, boot=boot, linux_faults={})
    return cells
