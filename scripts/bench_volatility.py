"""A device's read beside one of volatility3: ``python -m scripts.bench_volatility``.

The function of :mod:`scripts.bench` reads 64 bytes through a first stage; volatility3's Intel32e
layer reads them from a copy of the memory, through the same tables. volatility3 has to be installed
in the environment; the project itself does not need it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import random
import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from scripts.bench import (
    IOVA,
    LENGTH,
    PAGES,
    WITH_STRUCTURES,
    Machine,
    machine,
    reads,
    seconds,
)
from vtd.layouts.entries import PasidTranslationType as Kind

MISSING = (
    "volatility3 is not installed: make an environment with this project and volatility3, and run "
    "python -m scripts.bench_volatility there"
)


class Ratio(NamedTuple):
    """Both reads of one case."""

    name: str
    device: float
    """Microseconds of a device's read."""
    volatility: float
    """Microseconds of a read through the layer."""

    @property
    def times(self) -> float:
        """How many times as fast the device's read is."""
        return self.volatility / self.device


def layer_of(machine: Machine) -> Any:
    """The tables of a machine's domain as a layer of volatility3."""
    contexts, physical, intel = (
        importlib.import_module(f"volatility3.framework.{name}")
        for name in ("contexts", "layers.physical", "layers.intel")
    )
    memory = machine.platform.memory
    frames = sorted(memory.frames)
    image = mmap.mmap(-1, frames[-1] + 1 << 12)
    for frame in frames:
        image[frame << 12 : frame + 1 << 12] = memory.read(frame << 12, 1 << 12)
    context = contexts.Context()
    context.add_layer(physical.BufferDataLayer(context, "memory", "memory", image))
    context.config["tables.memory_layer"] = "memory"
    context.config["tables.page_map_offset"] = machine.domain.root
    layer = intel.Intel32e(context, "tables", "tables")
    context.add_layer(layer)
    return layer


def layer_reads(
    layer: Any, addresses: list[int], repeat: int = 1, *, forget: bool = False
) -> Callable[[], None]:
    """Read through the layer at each address, with ``forget`` from the root table on each time."""
    read, forget_table = layer.read, type(layer)._get_valid_table.cache_clear

    def run() -> None:
        for _ in range(repeat):
            for address in addresses:
                if forget:
                    forget_table()
                read(address, LENGTH)

    return run


def measure(rounds: int) -> list[Ratio]:
    """Each case in every round, the device first; medians of CPU time."""
    order = [IOVA + (page << 12) + 0x100 for page in range(PAGES)]
    # volatility3 keeps the bytes of its last 512 reads: no address is among those when it is read.
    few = [IOVA + (page << 12) + LENGTH * part for part in range(64) for page in range(32)]
    shuffled = order[:]
    random.Random(1).shuffle(shuffled)
    plain, structures = machine(Kind.FIRST_STAGE), machine(Kind.FIRST_STAGE, WITH_STRUCTURES)
    for each in (plain, structures):
        reads(each, order)()  # so that all pages exist
    layer = layer_of(plain)
    for address in shuffled[:64]:
        if layer.read(address, LENGTH) != plain.function.dma.read(address, LENGTH).data:
            raise RuntimeError(f"{address:#x}: the two reads differ")

    def forget() -> None:
        type(layer)._translate_entry.cache_clear()
        type(layer)._get_valid_table.cache_clear()

    cases = (
        ("hit", plain, reads(plain, few, 3), layer_reads(layer, few, 3), 3 * len(few)),
        (
            "miss, tables cached",
            structures,
            reads(structures, shuffled),
            layer_reads(layer, shuffled),
            PAGES,
        ),
        (
            "miss, nothing cached",
            plain,
            reads(plain, shuffled),
            layer_reads(layer, shuffled, forget=True),
            PAGES,
        ),
    )
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for name, device, ours, theirs, count in cases:
            device.clear_iotlb()
            forget()
            cost = seconds(ours) / count, seconds(theirs) / count
            times.setdefault(name, []).append(cost)
    return [
        Ratio(name, *(statistics.median(each) * 1e6 for each in zip(*costs, strict=True)))
        for name, costs in times.items()
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 without volatility3."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    if find_spec("volatility3") is None:
        print(MISSING, file=sys.stderr)
        return 2
    ratios = measure(options.rounds)
    if options.format == "json":
        print(json.dumps([{**each._asdict(), "times": each.times} for each in ratios]))
        return 0
    for each in ratios:
        print(
            f"{each.name}: {each.device:.2f} us, volatility3 {each.volatility:.2f} us: "
            f"{each.times:.1f} times as fast"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
