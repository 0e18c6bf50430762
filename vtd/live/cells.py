"""The cells of the matrix: machines, kernel command lines and checks, each with what it is about.

A cell is a few lines of data. What Linux is known to do wrong on correct hardware is a
:class:`LinuxFault`; a cell that meets one on some kernel expects it by name, and fails if it does
not show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vtd.live.boot import Boot

NO_REMAPPING = {"ir": 0, "eim": 0, "mhmv": 0}
"""Most cells: interrupts are left alone, so that the machine monitor's I/O APIC may stay."""
SECOND = {"smts": 1, "ssts": 1}
THREE_LEVELS = {"sagaw": 2, "mgaw": 38}
NARROW = "address_bits = 39\n"
NO_QUEUE = {"qi": 0, "dt": 0, "pds": 0}
DISK = 65536
"""Blocks of a disk: 32 MiB."""


@dataclass(frozen=True)
class LinuxFault:
    """Something that a kernel does wrong, whatever the unit does."""

    name: str
    about: str
    shows: re.Pattern[str]
    """In what was found: check, audit or console."""
    proof: re.Pattern[str]
    """What is found, recorded, or on the console, where it is this one and no other."""


UNALIGNED = LinuxFault(
    "first-stage-unaligned",
    "6.1 invalidates a first-stage range that is no aligned power of two aligned down: its end "
    "stays in the IOTLB",
    re.compile(
        r"vfio (?:unaligned unmap|churn|superpages)|qi_flush_piotlb|"
        r"missing page-selective p_iotlb_inv"
    ),
    re.compile(r"vfio unaligned unmap|missing page-selective p_iotlb_inv"),
)
ALIAS = LinuxFault(
    "scalable-bridge-alias",
    "7.2 gives the source-id that a PCIe-to-PCI bridge puts in no context entry in scalable mode: "
    "fault 41h on every DMA behind it",
    re.compile(r"vfio|nvme|41h|0x41|no disk"),
    re.compile(r"fault reason 0x41"),
)
RESERVED_AW = LinuxFault(
    "aw-without-second-stage",
    "AW = 2 is written to PASID entries of a unit with SSTS = 0, where it is reserved (9.6): fault "
    "5Ah on every DMA",
    re.compile(r"vfio|nvme|5Ah|0x5a|no disk|qi_flush_piotlb"),
    re.compile(r"fault reason 0x5a"),
)
HINT = LinuxFault(
    "hint-in-address-mask",
    "7.2 without a queue puts the invalidation hint into bit 0 of IVA_REG.AM instead of IH, bit 6: "
    "where MAMV is even, ranges of that order are refused (11.4.6.3) and stay in the IOTLB",
    re.compile(r"check|missing page-selective iotlb_inv|fault|kernel: |used after"),
    re.compile(r"Flush IOTLB failed"),
)
ADDRESS_ZERO = LinuxFault(
    "address-zero-not-written",
    "without a queue IVA_REG is not written for the page at 0 alone: what it held before is "
    "invalidated, and under CM = 1 the page stays refused if it was",
    re.compile(r"vfio (?:high addresses|churn)|missing page-selective iotlb_inv|used after"),
    re.compile(r"the device does not find at 0 what is mapped there"),
)


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


def unit(
    profile: str = "qemu",
    fields: Mapping[str, int] | None = None,
    *,
    base: int = 0xFD00_0000,
    devices: tuple[str, ...] = (),
    remapping: bool = False,
) -> str:
    """A unit; ``fields`` differ from its profile, ``devices`` are its scope, all without any."""
    fields = {**({} if remapping else NO_REMAPPING), **(fields or {})}
    scope = f"devices = {list(devices)}" if devices else "include_all = true"
    changed = ", ".join(f"{name} = {value}" for name, value in fields.items())
    return f'[[unit]]\nbase = {base:#x}\nprofile = "{profile}"\n{scope}\nset = {{ {changed} }}\n'


def disk(at: str = "00:05.0", more: str = "", parameters: str = "") -> str:
    """An NVMe controller."""
    values = f"blocks = {DISK}{parameters}"
    return f'[[function]]\nat = "{at}"\nmodel = "nvme"\nparameters = {{ {values} }}\n{more}'


def edu(at: str = "00:06.0", more: str = "") -> str:
    """An edu device that reaches every address, at once."""
    values = f"dma_mask = {2**64 - 1:#x}, transfer_time = 0"
    return f'[[function]]\nat = "{at}"\nmodel = "edu"\nparameters = {{ {values} }}\n{more}'


def bridge(kind: str, name: str = "above", at: str = "00:04.0") -> str:
    """A port or bridge."""
    return f'[[bridge]]\nname = "{name}"\nat = "{at}"\nkind = "{kind}"\n'


def copy_engine(at: str = "00:08.0", more: str = "") -> str:
    """An I/OAT engine with two channels."""
    return f'[[function]]\nat = "{at}"\nmodel = "ioat"\nparameters = {{ channels = 2 }}\n{more}'


def accelerator(at: str = "00:08.0") -> str:
    """A Data Streaming Accelerator."""
    return f'[[function]]\nat = "{at}"\nmodel = "dsa"\n'


def virtio_disk(at: str = "00:08.0", more: str = "") -> str:
    """A virtio block device that has its driver map what it hands over."""
    values = f"blocks = {DISK}"
    return f'[[function]]\nat = "{at}"\nmodel = "virtio_blk"\nparameters = {{ {values} }}\n{more}'


def network(more: str = "", parameters: str = "", at: str = "00:08.0") -> str:
    """A network controller, and at the other end a host that answers ping."""
    values = f'link = "respond:10.0.0.1"{parameters}'
    return f'[[function]]\nat = "{at}"\nmodel = "nic82576"\n{more}parameters = {{ {values} }}\n'


def cabled(at: str) -> str:
    """A network controller, one of two with a cable between them."""
    values = f'mac = "02:00:82:57:60:{at[3:5]}", link = "cable:between"'
    return f'[[function]]\nat = "{at}"\nmodel = "nic82576"\nparameters = {{ {values} }}\n'


def reserved(device: str) -> str:
    """A reserved region of a device, in memory that SeaBIOS reserves at the end of 1 GiB."""
    return f'[[region]]\nstart = 0x3fff0000\nsize = 0x10000\ndevices = ["{device}"]\n'


DEVICES = disk() + edu() + edu("00:07.0")
CHECKS = ("units", "nvme", "filesystem", "rebind", "rescan", "reset", "domain_types", "vfio")


def _cell(
    name: str,
    about: str,
    machine: str,
    *,
    expect: Mapping[str, LinuxFault] | None = None,
    checks: tuple[str, ...] = CHECKS,
    **options: Any,
) -> Cell:
    options.setdefault("caches", "aggressive")
    if "set = {  }" in machine:
        machine = machine.replace("set = {  }\n", "")
    return Cell(name, about, Boot(machine, checks, **options), expect or {})


STRICT = "iommu.strict=1"
SCALABLE = "intel_iommu=on,sm_on"


def _network_cells() -> Iterator[Cell]:
    """Those of the network controller."""
    yield _cell(
        "network",
        "an 82576 and its driver's self-tests",
        unit() + DEVICES + network(),
        checks=("units", "network igb", "ethtool igb"),
        append=STRICT,
    )
    yield _cell(
        "network-scalable",
        "the same in scalable mode",
        unit("qemu-scalable-first", {"ssts": 1}) + DEVICES + network(),
        checks=("units", "network igb"),
        append=f"{SCALABLE} {STRICT}",
    )
    yield _cell(
        "network-virtual",
        "a virtual function by itself",
        unit() + DEVICES + network("vfs = 1\n", ", driven = true"),
        checks=("units", "network igbvf"),
    )
    yield _cell(
        "network-tcp",
        "64 MiB of TCP from one 82576 to another",
        unit() + DEVICES + cabled("00:08.0") + cabled("00:0a.0"),
        checks=("units", "network_tcp"),
        append=STRICT,
    )


def cells() -> Iterator[Cell]:
    """All cells but the negative controls."""
    second, first = unit("qemu", SECOND), unit("qemu-scalable-first", {"ssts": 1})
    yield _cell("legacy48-strict", "4 levels", unit() + DEVICES, append=STRICT)
    yield _cell("legacy48-lazy", "4 levels, flush queues", unit() + DEVICES)
    yield _cell(
        "copy-engine",
        "I/OAT behind a DMA domain",
        unit() + DEVICES + copy_engine(),
        checks=("units", "nvme", "ioat"),
        append=STRICT,
    )
    yield _cell(
        "virtio",
        "a virtio disk with VIRTIO_F_ACCESS_PLATFORM",
        unit() + DEVICES + virtio_disk(),
        checks=("units", "nvme", "virtio"),
        append=STRICT,
    )
    yield _cell(
        "virtio-scalable",
        "the same in scalable mode, with a device-TLB",
        second + disk() + edu() + bridge("root_port") + virtio_disk("above/00.0", "ats = true\n"),
        checks=("units", "nvme", "virtio"),
        append=SCALABLE,
    )
    yield _cell(
        "legacy39-strict", "3 levels", NARROW + unit("qemu", THREE_LEVELS) + DEVICES, append=STRICT
    )
    yield _cell(
        "legacy39-lazy", "3 levels, flush queues", NARROW + unit("qemu", THREE_LEVELS) + DEVICES
    )
    yield _cell("caches-default", "the default policy", unit() + DEVICES, caches="default")
    yield _cell("caches-off", "no caches at all", unit() + DEVICES, caches="off")
    yield _cell(
        "caching-mode",
        "CM = 1: what is not present is cached too",
        unit("qemu", {"cm": 1}) + DEVICES,
    )
    yield _cell("pass-through", "identity domains", unit() + DEVICES, append="iommu=pt")
    yield _cell("scalable-second", "PASID entries, second stage", second + DEVICES, append=SCALABLE)
    yield _cell(
        "scalable-first",
        "PASID entries, first stage, second for VFIO",
        first + DEVICES,
        append=f"{SCALABLE} {STRICT}",
    )
    yield _cell(
        "scalable-first-only",
        "first stage for VFIO too, AW not looked at where it is reserved",
        unit("qemu-scalable-first") + DEVICES,
        append=f"{SCALABLE} {STRICT}",
        departures=("ignore_aw_without_ssts",),
        expect={"6.1": UNALIGNED},
    )
    yield _cell(
        "scalable-pass-through",
        "PGTT pass-through",
        second + DEVICES,
        append=f"{SCALABLE} iommu=pt",
    )
    yield _cell(
        "first-without-second",
        "SSTS = 0",
        unit("qemu-scalable-first") + DEVICES,
        append=SCALABLE,
        checks=("units", "nvme", "vfio"),
        expect={"*": RESERVED_AW},
    )
    yield _cell(
        "xeon",
        "all features of a server",
        unit("xeon", remapping=True) + DEVICES,
        append=SCALABLE,
        interrupts_remapped=True,
    )
    yield _cell("client", "a client's unit: not coherent", unit("client") + DEVICES)
    yield _cell("no-queue", "register-based invalidation", unit("qemu", NO_QUEUE) + DEVICES)
    yield _cell(
        "no-queue-small-mask",
        "register-based invalidation of 16 pages at most",
        unit("qemu", {**NO_QUEUE, "mamv": 4}) + DEVICES,
        checks=("units", "vfio"),
        expect={"7": HINT},
    )
    yield _cell(
        "no-queue-caching-mode",
        "register-based invalidation, what is not present is cached too",
        unit("qemu", {**NO_QUEUE, "cm": 1, "mamv": 9}) + DEVICES,
        checks=("units", "vfio"),
        expect={"*": ADDRESS_ZERO},
    )
    for name, about, fields in (
        ("no-psi", "no page-selective invalidation", {"psi": 0, "mamv": 0}),
        ("small-pages", "4 KiB pages only", {"sslps": 0}),
        ("not-coherent", "C = 0: software flushes its caches", {"c": 0}),
    ):
        yield _cell(name, about, unit("qemu", fields) + DEVICES)
    yield _cell(
        "two-units",
        "one unit by scope, one for all else",
        unit(devices=("00:06.0",)) + unit(base=0xFD01_0000) + DEVICES,
        checks=("units 2", *CHECKS[1:]),
    )
    yield _cell(
        "root-port",
        "an edu device behind a root port",
        unit() + bridge("root_port") + disk() + edu("above/00.0") + edu("00:07.0"),
    )
    behind = bridge("pcie_to_pci") + disk() + edu("above/04.0") + edu("00:07.0")
    yield _cell("pci-bridge", "an edu device behind a PCIe-to-PCI bridge", unit() + behind)
    yield _cell(
        "pci-bridge-scalable",
        "the same in scalable mode",
        second + behind,
        append=SCALABLE,
        expect={"7": ALIAS},
    )
    ats = bridge("root_port") + disk("above/00.0", "ats = true\n") + edu() + edu("00:07.0")
    yield _cell("ats", "a disk with a device-TLB", unit() + ats)
    yield _cell("ats-scalable", "the same in scalable mode", second + ats, append=SCALABLE)
    interrupts = ("units", "nvme", "rebind", "vfio", "provoke")
    yield _cell(
        "interrupts-xapic",
        "interrupt remapping, xAPIC",
        unit(remapping=True) + DEVICES,
        checks=("remapping xapic", *interrupts),
        interrupts_remapped=True,
    )
    yield _cell(
        "interrupts-x2apic",
        "interrupt remapping, x2APIC",
        unit("qemu", {"eim": 1}, remapping=True) + DEVICES,
        checks=("remapping x2apic", *interrupts),
        cpu="qemu64,+x2apic",
        interrupts_remapped=True,
    )
    yield _cell(
        "interrupts-scalable",
        "interrupt remapping beside PASID entries",
        unit("qemu-scalable", remapping=True) + DEVICES,
        append=SCALABLE,
        checks=("remapping xapic", *interrupts),
        interrupts_remapped=True,
    )
    yield _cell(
        "eventfds",
        "QEMU keeps MSI and MSI-X",
        unit() + DEVICES,
        checks=("units", "nvme", "rebind", "vfio"),
        eventfds=True,
    )
    yield _cell("intx", "the pin of an edu device", unit() + DEVICES, checks=("units", "intx"))
    yield from _network_cells()
    yield _cell(
        "disk-virtual",
        "a virtual function of a disk, given its queues by the physical one",
        unit() + edu() + edu("00:07.0") + disk(more="vfs = 1\n", parameters=", vfs = 2"),
        checks=("units", "nvme", "nvme_virtual"),
        append=f"{STRICT} nvme_core.multipath=N",
    )
    yield _cell(
        "power-cut",
        "the power fails while a disk is written",
        unit() + DEVICES,
        checks=("units", "write_until_cut"),
        next_checks=("units", "after_cut", "nvme every"),
        power_cut=True,
    )
    yield _cell(
        "sva",
        "processes share their addresses with an accelerator",
        unit("xeon", remapping=True) + DEVICES + accelerator(),
        append=f"{SCALABLE} setcpuid=movdir64b",
        checks=("units", "nvme", "sva"),
        interrupts_remapped=True,
    )
    yield _cell(
        "collect",
        "vtd collect as root and as an ordinary user",
        unit("xeon", remapping=True)
        + reserved("00:07.0")
        + bridge("root_port")
        + DEVICES
        + network(at="above/00.0"),
        append=SCALABLE,
        checks=("units", "nvme", "collect"),
        interrupts_remapped=True,
    )
    yield _cell(
        "suspend",
        "units saved and programmed again",
        unit() + DEVICES,
        checks=("units", "nvme", "suspend", "vfio"),
        append="no_console_suspend",
    )
    yield _cell(
        "suspend-scalable",
        "the same in scalable mode",
        second + DEVICES,
        checks=("units", "nvme", "suspend", "vfio"),
        append=f"{SCALABLE} no_console_suspend",
    )
    yield _cell(
        "kexec",
        "another kernel takes over",
        unit() + DEVICES,
        checks=("units", "nvme", "kexec"),
        next_checks=("units", "nvme", "filesystem"),
    )
    for name, of, append in (("kdump", unit(), ""), ("kdump-scalable", second, SCALABLE)):
        yield _cell(
            name,
            "a crash kernel finds translation on",
            of + DEVICES,
            checks=("units", "nvme", "kdump"),
            next_checks=("crash_kernel", "units", "nvme"),
            append=append,
        )
    yield _cell(
        "counters",
        "performance monitoring by perf",
        unit("xeon", remapping=True) + DEVICES,
        append=SCALABLE,
        checks=("units", "nvme", "counters"),
        interrupts_remapped=True,
    )


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
    "82576": "".join(
        network(parameters=", total_vfs = 1, first_vf_offset = 16", at=place)
        for place in KIT_PLACES
    ),
    "ioat": "".join(map(copy_engine, KIT_PLACES)),
}
"""What does DMA."""
LEGACY = unit(remapping=True)
KIT_UNITS = {
    "kit": (LEGACY, "edu", "legacy mode"),
    "kit-second": (unit("qemu-scalable", remapping=True), "edu", "PASID entries, second stage"),
    "kit-first": (unit("qemu-scalable-first", remapping=True), "edu", "PASID entries, first stage"),
    "kit-82576": (LEGACY, "82576", "legacy mode, by network controllers"),
    "kit-ioat": (LEGACY, "ioat", "legacy mode, by copy engines"),
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
    for defect in KIT_CONTROLS:
        boot = Boot(
            LEGACY + KIT_DEVICES["edu"], (), caches="aggressive", silence=30, defects=(defect,)
        )
        about = "the conformance kit on a unit with a defect"
        yield Cell(f"broken-kit:{defect}", about, boot, {}, noticed=True, kit=KIT_CASES)


_REATTACHED = dict.fromkeys(("no-context-invalidation", "no-pasid-invalidation"), ("domain_types",))
"""Further checks of what only a device shows that changes its domain."""


def all_cells() -> dict[str, Cell]:
    """Every cell by name, negative controls last."""
    known = {cell.name: cell for cell in cells()}
    return known | {cell.name: cell for cell in (*controls(known), *kit_cells())}
