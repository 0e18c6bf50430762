"""Logs for HyperSIO, made of generated traces: ``python -m scripts.hypersio_logs FOLDER``.

HyperSIO (ISCA 2020) reads what its QEMU prints of translations, as ``vtd trace convert`` does. The
page of :mod:`scripts.reproduce` shows its counts of these logs beside those of ``vtd sweep``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vtd.batch.columns import RowKind
from vtd.sweeps.designs import Space, parse_shapes
from vtd.sweeps.running import tasks_of
from vtd.sweeps.steps import carry_out
from vtd.traces import parquet
from vtd.traces.reading import read_trace
from vtd.traces.workload import Workload

LEAVES = 0xFFFF_FFFF_FFFF_F000
HOST = 1 << 32
"""Where pages lead."""
FIRST_DEVICE = 2
"""HyperSIO's tenants are devices from here on, function 0."""
_NIC = """rows = 300000
[[stream]]
kind = "nic"
functions = {tenants}
order = "{order}"
ring = 64
gigabits = 200
buffers = "{buffers}"
spread = 512
"""
_RANDOM = """rows = 200000
[[stream]]
kind = "random"
functions = {tenants}
order = "{order}"
size = {size}
length = 64
"""
WORKLOADS = {
    "fresh": (4, _NIC.format(tenants=4, order="round-robin", buffers="fresh")),
    "rings": (16, _NIC.format(tenants=16, order="random", buffers="ring")),
    "wide": (3, _RANDOM.format(tenants=3, order="round-robin", size=16 << 20)),
    "narrow": (2, _RANDOM.format(tenants=2, order="random", size=128 << 10)),
}
"""Tenants and streams."""
SHAPES = ((64, 8), (64, 64), (64, 1), (1024, 16))
"""Entries and ways. HyperSIO takes the set from address bits 21 and up."""
COUNTED = {
    "fresh": ((640, 748), (149986, 149986), (0, 0), (150266, 150266)),
    "rings": ((18546, 22986), (134046, 134492), (0, 4459), (44896, 46734)),
    "wide": ((435, 577), (558, 566), (0, 62), (1038, 1107)),
    "narrow": ((12489, 13895), (99935, 99935), (1560, 2599), (25072, 26272)),
}
"""Hits of HyperSIO for each shape: with one translation a packet, and with three as it has them."""


def lines(workload: str) -> Iterator[str]:
    """The translations of a workload, a hit and an update in turn: what they say does not count."""
    for rows in Workload.parse(workload).arrays():
        requests = rows[rows["kind"] == RowKind.DMA]
        tenants = requests["source_id"] - 0x100
        for number, (tenant, address) in enumerate(
            zip(tenants.tolist(), requests["address"].tolist(), strict=True)
        ):
            page = address & LEAVES
            where = f"sid {FIRST_DEVICE + tenant << 3:#x} iova {page:#x}"
            entry, domain = f"slpte {HOST + page | 3:#x}", f"domain {tenant + 1:#x}"
            if number % 2:
                yield f"vtd_iotlb_page_update {where} {entry} level 0x1 {domain}\n"
            else:
                yield f"vtd_iotlb_page_hit {where} pmask {LEAVES:#x} {entry} {domain}\n"


def hits(log: Path) -> list[tuple[int, int]]:
    """Hits and misses of a log by shape, counted as ``vtd sweep`` counts them."""
    space = Space(
        tuple(
            shape
            for entries, ways in SHAPES
            for shape in parse_shapes(f"sets={entries // ways} ways={ways} index=9")
        )
    )
    trace = str(log.with_suffix(".parquet"))
    parquet.write(trace, read_trace(str(log)))
    found = {}
    for task in tasks_of(trace, space.passes(), 1):
        for outcome in carry_out(task):
            last = outcome.history[-1]
            for ways, misses in zip(outcome.wanted.ways, last.misses, strict=True):
                found[outcome.wanted.iotlb.sets, ways] = last.lookups - misses, misses
    return [found[entries // ways, ways] for entries, ways in SHAPES]


def rows() -> Iterator[tuple[object, ...]]:
    """Workload, tenants, shape, our hits and misses, HyperSIO's hits: one at a time, three."""
    for name, (tenants, workload) in WORKLOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log.txt")
            log.write_text("".join(lines(workload)))
            for shape, ours, theirs in zip(SHAPES, hits(log), COUNTED[name], strict=True):
                yield name, tenants, f"{shape[0]} of {shape[1]} ways", *ours, *theirs


def main() -> None:
    """Write the logs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, (_, workload) in WORKLOADS.items():
        (folder / f"{name}_0.txt").write_text("".join(lines(workload)))
    print(f"{len(WORKLOADS)} logs written")


if __name__ == "__main__":
    main()
