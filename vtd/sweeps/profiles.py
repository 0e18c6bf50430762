"""Shapes of IOTLBs that somebody has published or measured, each with its source.

Vendors of processors with VT-d do not publish theirs; some that are published are of other IOMMUs.
Where a page says that a shape was inferred or that a text was not seen, this says so too.
"""

from __future__ import annotations

from typing import NamedTuple

from vtd.unit.caching.cache import OFF, Replacement, Shape


class Profile(NamedTuple):
    """Caches by name."""

    iotlb: Shape
    structures: Shape
    what: str
    source: str
    standing: str
    """How sure it is."""


PUBLISHED = {
    "broadwell-64": Profile(
        Shape(64),
        OFF,
        "Xeon E5-2630 v4, seen from a PCIe device",
        "Understanding PCIe performance (SIGCOMM 2018); data of github.com/pcie-bench/data, "
        "nfp6000-1.2GHz_bdw-Xeon-E5-2630v4-dell-t430-s0-s0-s0-iommu-nosp",
        "64 entries: as cited, the text was not seen; the measured windows fit 64 and one walk at "
        "a time. Associativity is not known: full here.",
    ),
    "hypertrio": Profile(
        Shape(8, 8, index=9),
        Shape(16, 32),
        "base configuration of a simulated device-TLB and its walker",
        "HyperTRIO (ISCA 2020); github.com/PrincetonUniversity/hypersio",
        "confirmed from the source, which takes the set from address bits 21 and up; its 512 and "
        "1024 entries by level are one cache of 512 here.",
    ),
    "riommu-ring": Profile(
        Shape(1, 1),
        OFF,
        "one entry for a ring",
        "rIOMMU (ASPLOS 2015)",
        "confirmed from the abstract: a design for rings, whose entry is replaced at each step",
    ),
    "omap": Profile(
        Shape(32),
        OFF,
        "IOMMU of TI's OMAP processors, by default; 8 in some of its instances",
        "Linux, Documentation/devicetree/bindings/iommu/ti,omap-iommu.yaml, ti,#tlb-entries",
        "32 entries: as the binding says. Associativity and replacement are not told: full and LRU "
        "here. Not VT-d.",
    ),
    "gem5-smmu": Profile(
        Shape(4, 512, Replacement.FIFO),
        OFF,
        "main TLB of a device interface in gem5's model of an SMMUv3, by default",
        "github.com/gem5/gem5, src/dev/arm/SMMUv3.py: 2048 entries of 4 ways, round robin",
        "confirmed from the source: a simulated unit. Its micro TLB of 32 entries in front and its "
        "walk caches by level are left out. Not VT-d.",
    ),
}
