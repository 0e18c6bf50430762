"""What hypothesis draws for machine descriptions: sound ones, and documents with damage."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vtd.machine.description import (
    BridgeKind,
    DescribedBridge,
    DescribedFunction,
    DescribedMemory,
    DescribedRegion,
    DescribedSriov,
    DescribedSwitch,
    DescribedUnit,
    Machine,
    Slot,
)
from vtd.machine.writing import as_mapping

MODELS = ("inert", "edu", "nvme", "dma_engine", "testdev")
ACS = st.sampled_from([(), ("sv", "rr", "cr", "uf"), ("sv", "tb")])


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A sound machine: a few root ports, switches, old bridges, functions, and two units."""
    bridges: list[DescribedBridge] = []
    switches: list[DescribedSwitch] = []
    functions: list[DescribedFunction] = []
    places: list[tuple[str | None, int]] = [(None, n) for n in range(draw(st.integers(1, 4)))]
    number = 0
    while places:
        above, device = places.pop()
        number += 1
        at = Slot((0, 0) if above is None else above, device, 0)
        behind_link = above is not None and above.startswith(("port", "switch"))
        kinds = ["function"] if number > 9 else ["function", "function", "old"]
        if above is None and number <= 9:
            kinds.append("port")
        if behind_link and number <= 9:
            kinds.append("switch")
        match draw(st.sampled_from(kinds)):
            case "port":
                name = f"port{number}"
                bridges.append(
                    DescribedBridge(name=name, at=at, kind=BridgeKind.ROOT_PORT, acs=draw(ACS))
                )
                places.append((name, 0))
            case "old":
                name = f"old{number}"
                kind = BridgeKind.PCIE_TO_PCI if behind_link or above is None else None
                bridges.append(
                    DescribedBridge(name=name, at=at, kind=kind or BridgeKind.PCI_TO_PCI)
                )
                places += [(name, each) for each in range(draw(st.integers(1, 2)))]
            case "switch":
                name = f"switch{number}"
                ports = draw(st.integers(1, 3))
                switches.append(DescribedSwitch(name=name, at=at, ports=ports, acs=draw(ACS)))
                places += [(f"{name}.{port}", 0) for port in range(ports)]
            case _:
                functions.append(draw(_functions(at, number)))
    names = [each.name for each in bridges] + [each.name for each in functions]
    listed = tuple(draw(st.lists(st.sampled_from(names), max_size=3, unique=True)))
    regions = draw(st.booleans()) and functions
    second = draw(st.sampled_from(["qemu", "xeon"]))
    return Machine(
        memory=(DescribedMemory(start=0, size=16 << 20),),
        units=(
            DescribedUnit(base=0xFED9_0000, profile="qemu", devices=listed),
            DescribedUnit(base=0xFED9_2000, profile=second, include_all=True),
        )[0 if listed else 1 :],
        regions=(DescribedRegion(start=0x7B_0000, size=0x1000, devices=(functions[0].name,)),)
        if regions
        else (),
        bridges=tuple(bridges),
        switches=tuple(switches),
        functions=tuple(functions),
    )


@st.composite
def _functions(draw: st.DrawFn, at: Slot, number: int) -> DescribedFunction:
    virtual = draw(st.booleans())
    return DescribedFunction(
        name=f"function{number}",
        at=at,
        model="inert" if virtual else draw(st.sampled_from(MODELS)),
        sriov=DescribedSriov(total=4, first_offset=draw(st.sampled_from([0x80, 0x100])), stride=1)
        if virtual
        else None,
        vfs=2 if virtual else 0,
        bus_master=draw(st.booleans()),
    )


JUNK: st.SearchStrategy[Any] = st.one_of(
    st.integers(-2, 1 << 70),
    st.booleans(),
    st.sampled_from(["", "00:02.0", "port1/00.0", "port1", "old2", "nvme", "qemu", "root_port"]),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([{"id": 1, "at": "00:1f.0"}]),
    st.just({"total": 300, "first_offset": 0xFFFF, "stride": 0xFFFF}),
)


@st.composite
def damaged_documents(draw: st.DrawFn) -> dict[str, Any]:
    """The mapping of a sound machine with a few values replaced, added or taken away."""
    document = as_mapping(draw(machines()))
    for _ in range(draw(st.integers(1, 3))):
        table: Any = document
        while True:
            if isinstance(table, dict):
                key = draw(st.sampled_from([*table, "start", "name", "kind"]))
            elif table:
                key = draw(st.integers(0, len(table) - 1))
            else:
                break
            inner = table[key] if isinstance(table, list) else table.get(key)
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 5)):
                table = inner
                continue
            if draw(st.integers(0, 3)):
                table[key] = draw(JUNK)
            elif isinstance(table, list) or key in table:
                del table[key]
            break
    return document
