"""What a remapping unit implements: CAP_REG and ECAP_REG read together (VT-d 11.4.2, 11.4.3).

:class:`Capabilities` decodes the two registers once; ``check`` lists where they contradict each
other. ``PROFILES`` holds ready-made units. Left out: capabilities that later registers report,
such as those of performance monitoring.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pagetables.bits import Implementation
from vtd.layouts.entries import AddressWidth
from vtd.layouts.registers import (
    AddressWidths,
    Capability,
    ExtendedCapability,
    LargePages,
    Version,
)
from vtd.numbers import parse_count, parse_hexadecimal
from vtd.unit.registers.register_map import overlaps, register_map

WIDTHS = {
    AddressWidths.AGAW_39: AddressWidth.AGAW_39,
    AddressWidths.AGAW_48: AddressWidth.AGAW_48,
    AddressWidths.AGAW_57: AddressWidth.AGAW_57,
}

DEPENDENCIES: tuple[tuple[str, str], ...] = (
    ("fs5lp", "fsts"),
    ("fs1gp", "fsts"),
    ("pi", "ir"),
    ("irreq", "ir"),
    ("eimer", "eim"),
    ("hpt1gps", "hpts"),
    ("sms", "prs"),
    ("ssirws", "ssts"),
    ("ptrs", "dt"),
    ("ptrs", "pasid"),
    ("hpts", "smts"),
    ("hpts", "dt"),
    ("rprivs", "srs"),
    ("pms", "ecmds"),
    ("rps", "smts"),
    ("smpwcs", "smts"),
    ("fsts", "smts"),
    ("ssads", "smpwcs"),
    ("smts", "qi"),
    ("pds", "dt"),
    ("dit", "dt"),
    ("pasid", "smts"),
    ("eafs", "fsts"),
    ("eafs", "smpwcs"),
    ("nwfs", "dt"),
    ("srs", "smts"),
    ("prs", "dt"),
    ("prs", "smts"),
    ("nest", "smts"),
    ("nest", "fsts"),
    ("nest", "ssts"),
    ("mts", "smts"),
    ("eim", "ir"),
    ("ir", "qi"),
    ("dt", "qi"),
)
"""Flags that are clear while another one is clear, as their descriptions say (11.4.2, 11.4.3)."""
SCALABLE = frozenset({"smts", "fsts", "ssts", "smpwcs"})
"""Flags that mean nothing while scalable mode is off, and the mode itself."""
DEFERRED_INVALIDATION = 1 << 27
"""A bit of ECAP in revision 2, reserved since."""


@dataclass(frozen=True)
class Capabilities:
    """The capability registers of a unit, and the address width of the platform it sits in."""

    version: Version
    cap: Capability
    ecap: ExtendedCapability
    host_address_width: int

    @classmethod
    def of(cls, version: int, cap: int, ecap: int, host_address_width: int) -> Capabilities:
        """From register values; ValueError for one that does not fit, or a width of no platform."""
        if not 12 <= host_address_width <= 52:
            raise ValueError(f"host_address_width: {host_address_width} is not from 12 to 52")
        return cls(Version(version), Capability(cap), ExtendedCapability(ecap), host_address_width)

    @cached_property
    def features(self) -> frozenset[str]:
        """Mnemonics of the flags that are set, and four names for what no single flag says.

        ``sslps_2m`` and ``sslps_1g`` are the bits of SSLPS, ``pmr`` is either protected memory
        region. SSADS counts only together with SSTS, as its one use does (9.6).
        """
        names = set(self.cap.flags() | self.ecap.flags())
        if LargePages.PAGE_2M in self.cap.sslps:
            names.add("sslps_2m")
        if LargePages.PAGE_1G in self.cap.sslps:
            names.add("sslps_1g")
        if self.cap.plmr or self.cap.phmr:
            names.add("pmr")
        if not self.ecap.ssts:
            names.discard("ssads")
        return frozenset(names)

    @cached_property
    def implementation(self) -> Implementation:
        """What decides which bits of entries and registers are reserved."""
        return Implementation(self.host_address_width, self.did_width, self.features)

    @property
    def major_version(self) -> int:
        return self.version.max

    @property
    def did_width(self) -> int:
        """Bits of a domain-id; the reserved code of ND counts as the widest."""
        return min(4 + 2 * self.cap.nd, 16)

    @property
    def pasid_width(self) -> int:
        """Bits of a PASID in a request; 0 without PASID support."""
        return min(self.ecap.pss + 1, 20) if self.ecap.pasid else 0

    @property
    def max_guest_address_width(self) -> int:
        """MGAW in bits."""
        return self.cap.mgaw + 1

    @cached_property
    def address_widths(self) -> frozenset[AddressWidth]:
        """Codes of AW that second-stage tables may have."""
        return frozenset(code for flag, code in WIDTHS.items() if flag in self.cap.sagaw)

    @property
    def snoops(self) -> bool:
        """Whether it looks into caches of processors whatever structure it reads (3.10)."""
        return "c" in self.features and ("smpwcs" in self.features or "smts" not in self.features)

    @property
    def fault_records(self) -> int:
        """Number of fault recording registers."""
        return self.cap.nfr + 1

    @property
    def fault_recording_offset(self) -> int:
        return self.cap.fro

    @property
    def iotlb_offset(self) -> int:
        """Offset of the Invalidate Address Register; the IOTLB Invalidate Register follows it."""
        return self.ecap.iro

    def check(self) -> list[str]:
        """Where the registers depart from revision 5.10, one sentence each; empty if nowhere."""
        return [*self.contradictions(), *self.remnants()]

    def contradictions(self) -> list[str]:
        """Where the registers contradict each other in a way that software stumbles over."""
        cap, ecap, major = self.cap, self.ecap, self.major_version
        found = [
            f"{_section(flag)}: {flag.upper()} is set without {needed.upper()}"
            for flag, needed in self._unmet()
            if ecap.smts or needed not in SCALABLE
        ]
        rules = (
            (
                cap & Capability.RESERVED,
                f"11.4.2: reserved bits {cap & Capability.RESERVED:#x} are set",
            ),
            (
                ecap & ExtendedCapability.RESERVED & ~DEFERRED_INVALIDATION,
                "11.4.3: reserved bits "
                f"{ecap & ExtendedCapability.RESERVED & ~DEFERRED_INVALIDATION:#x} are set",
            ),
            (cap.nd == 7, "11.4.2: ND has the reserved value 7"),
            (cap.sslps not in (0, 1, 3), f"11.4.2: SSLPS has the illegal value {int(cap.sslps)}"),
            (cap.rwbf and ecap.smts, "11.4.2: RWBF is set with SMTS"),
            (cap.mgaw == 0, "11.4.2: MGAW is 0"),
            (
                self.max_guest_address_width < self.host_address_width,
                f"11.4.2: MGAW of {self.max_guest_address_width} bits is less than the host "
                f"address width of {self.host_address_width}",
            ),
            (
                major >= 6 and not ecap.qi,
                "6.5: QI is clear in major version 6 or higher, which has no other interface for "
                "invalidations",
            ),
            (major >= 6 and not ecap.ssts and cap.sagaw, "11.4.2: SAGAW is not 0 without SSTS"),
            (major >= 2 and not cap.drd, "11.4.2: DRD is clear in major version 2 or higher"),
            (major >= 2 and not cap.dwd, "11.4.2: DWD is clear in major version 2 or higher"),
            (ecap.smts and ecap.dep_24, "11.4.3: deprecated bit 24 is set"),
            (ecap.pss > 19, f"11.4.3: PSS of {ecap.pss + 1} bits is wider than a PASID"),
            (ecap.mhmv and not ecap.ir, "11.4.3: MHMV is not 0 without IR"),
        )
        found += [message for broken, message in rules if broken]
        found += [
            f"11.4: FRO or IRO puts {first.__name__} over {second.__name__}"
            for first, second in overlaps(register_map(self.features, cap, ecap, {}))
        ]
        return found

    def remnants(self) -> list[str]:
        """What healthy units of older revisions show, or those whose scalable mode is switched off.

        Software that follows this revision passes over it: bits that an older one defined, and
        parts of scalable mode that say nothing without SMTS.
        """
        cap, ecap = self.cap, self.ecap
        found = [
            f"{_section(flag)}: {flag.upper()} is set without {needed.upper()}"
            for flag, needed in self._unmet()
            if needed in SCALABLE and not ecap.smts
        ]
        rules = (
            (ecap.pss and not ecap.smts, "11.4.3: PSS is not 0 without SMTS"),
            (cap.dep_23, "11.4.2: deprecated bit 23 is set (isochrony, revision 1)"),
            (cap.sagaw & 0x11, "11.4.2: SAGAW has bits of revision 1 set (30 or 64 bits)"),
            (ecap.dep_28, "11.4.3: deprecated bit 28 is set (extended mode, revision 2)"),
            (ecap & DEFERRED_INVALIDATION, "11.4.3: bit 27 is set (extended mode, revision 2)"),
            (
                ecap.dep_24 and not ecap.smts,
                "11.4.3: deprecated bit 24 is set (extended mode, revision 2)",
            ),
            (ecap.dep_5, "11.4.3: deprecated bit 5 is set (caching hints, revision 1)"),
            (ecap.ers, "11.4.3: ERS is set (execute requests, up to revision 4)"),
        )
        return found + [message for shown, message in rules if shown]

    def consequences(self) -> list[str]:
        """What software can't do with a unit although its mode or its tables are there."""
        if self.address_widths:
            return []
        found = ["11.4.2: SAGAW is 0: no AW is legal in a context entry of legacy mode (9.3)"]
        if self.ecap.ssts:
            found.append("11.4.2: SAGAW is 0: no AW is legal in a PASID entry with SSTS (9.6)")
        return found

    def _unmet(self) -> Iterator[tuple[str, str]]:
        """Flags that are set while one they need is clear."""
        flags = self.cap.flags() | self.ecap.flags()
        return (
            (flag, needed) for flag, needed in DEPENDENCIES if flag in flags and needed not in flags
        )


def unit_named(text: str) -> Capabilities:
    """A profile by its name, or the unit of ``raw:VERSION:CAP:ECAP:HAW``, registers hexadecimal.

    ValueError for what is neither.
    """
    if text in PROFILES:
        return PROFILES[text]
    try:
        kind, *registers, bits = text.split(":")
        version, cap, ecap = map(parse_hexadecimal, registers)
        width = parse_count(bits)
    except ValueError:
        kind = ""
    if kind != "raw":
        known = ", ".join(PROFILES)
        raise ValueError(f"{text!r}: neither raw:VERSION:CAP:ECAP:HAW nor one of {known}")
    if max(version >> 8, cap >> 64, ecap >> 64):
        raise ValueError(f"{text!r}: VERSION has 8 bits, CAP and ECAP have 64")
    if not 12 <= width <= 52:
        raise ValueError(f"{text!r}: a host address width of {width} bits is none of 12 to 52")
    unit = Capabilities.of(version, cap, ecap, width)
    found = unit.contradictions()
    if found:
        raise ValueError(f"{text!r} contradicts itself: {found[0]}")
    return unit


def _section(flag: str) -> str:
    return "11.4.2" if flag in Capability.FIELDS else "11.4.3"


PROFILES: dict[str, Capabilities] = {
    # QEMU 11's intel-iommu with its defaults: legacy mode, 48 bits.
    "qemu": Capabilities.of(0x10, 0x80D2008C222F0606, 0xF00F4A, 48),
    # The same with scalable-mode=on, which offers second-stage translation, ...
    "qemu-scalable": Capabilities.of(0x10, 0x80D2008C222F0606, 0x480080F00F4A, 48),
    # ... and with fsts=on besides, which offers first-stage translation instead.
    "qemu-scalable-first": Capabilities.of(0x10, 0x81D2008C222F0606, 0x880000F00F4A, 48),
    # OpenVMM's emulated unit: legacy mode only.
    "openvmm": Capabilities(
        Version.of(max=1),
        Capability.of(
            drd=True, dwd=True, mamv=18, psi=True, sslps=3, fro=0x120, zlr=True, mgaw=47, sagaw=6,
            nd=6,
        ),
        ExtendedCapability.of(mhmv=15, iro=0x100, eim=True, ir=True, qi=True, c=True),
        48,
    ),
    # A client processor's unit for all devices but graphics: legacy mode, 39 bits.
    "client": Capabilities(
        Version.of(max=5),
        Capability.of(
            drd=True, dwd=True, mamv=18, psi=True, sslps=3, fro=0x400, zlr=True, mgaw=38, sagaw=4,
            phmr=True, plmr=True, nd=2,
        ),
        ExtendedCapability.of(
            mhmv=15, iro=0x500, sc=True, pt=True, eim=True, ir=True, qi=True
        ),
        39,
    ),
    # A server processor's unit: scalable mode with all stages, PASID, ATS, page requests, posting,
    # performance monitoring.
    "xeon": Capabilities(
        Version.of(max=6),
        Capability.of(
            esrtps=True, esirtps=True, ecmds=True, fs5lp=True, pi=True, fs1gp=True, drd=True,
            dwd=True, mamv=18, nfr=7, psi=True, sslps=3, fro=0x280, zlr=True, mgaw=56, sagaw=12,
            phmr=True, plmr=True, nd=6,
        ),
        ExtendedCapability.of(
            rprivs=True, adms=True, pms=True, rps=True, smpwcs=True, fsts=True, ssts=True,
            ssads=True, smts=True, pds=True, dit=True, pasid=True, pss=19, eafs=True, nwfs=True,
            srs=True, prs=True, nest=True, mts=True, mhmv=15, iro=0x500, sc=True, pt=True, eim=True,
            ir=True, dt=True, qi=True, c=True,
        ),
        52,
    ),
    # An emulated unit as a hypervisor offers it: caching mode, PASIDs by virtual command.
    "viommu": Capabilities(
        Version.of(max=1),
        Capability.of(
            esrtps=True, esirtps=True, fs1gp=True, drd=True, dwd=True, mamv=18, psi=True, sslps=3,
            fro=0x220, zlr=True, mgaw=47, sagaw=6, cm=True, nd=6,
        ),
        ExtendedCapability.of(
            rps=True, smpwcs=True, fsts=True, ssts=True, vcs=True, smts=True, pds=True, pasid=True,
            pss=19, nwfs=True, srs=True, prs=True, nest=True, mhmv=15, iro=0xF0, sc=True, pt=True,
            eim=True, ir=True, dt=True, qi=True, c=True,
        ),
        48,
    ),
}  # fmt: skip
