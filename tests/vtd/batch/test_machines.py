"""Arrays for platforms, rows of software by the driver, and a row explained."""

from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="needs the batch extra")
pytest.importorskip("numba", reason="needs the batch extra")

from devices.dma import READ, WRITE  # noqa: E402
from devices.function import Identity, PciFunction  # noqa: E402
from devices.topology import Topology  # noqa: E402
from pagetables.build import FramePool  # noqa: E402
from pagetables.memory import PhysicalMemory  # noqa: E402
from vtd.batch.columns import Requests, RowKind, new_rows  # noqa: E402
from vtd.batch.driven import by_driver  # noqa: E402
from vtd.batch.engine import run  # noqa: E402
from vtd.batch.explanation import explain_row  # noqa: E402
from vtd.batch.outcomes import Status  # noqa: E402
from vtd.dmar.description import build as build_table  # noqa: E402
from vtd.platform import Platform  # noqa: E402
from vtd.software.domain import DomainError  # noqa: E402
from vtd.software.driver import Driver  # noqa: E402
from vtd.unit.caching.cache import Shape  # noqa: E402
from vtd.unit.caching.policy import CachePolicy  # noqa: E402
from vtd.unit.options import Options  # noqa: E402
from vtd.unit.registers.capabilities import PROFILES  # noqa: E402

TABLE = """
[[structure]]
type = "DRHD"
register_base = 0xfed90000
[[structure.scope]]
type = "pci_endpoint"
path = ["02.0"]

[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed91000
"""
ALONE, OTHER = 0x10, 0x18
IOVA, DATA = 0x10_0000, 0x800_0000


class Machine:
    """Two units, one for a function alone, with a driver each."""

    def __init__(self, *, scalable: bool) -> None:
        memory = PhysicalMemory()
        memory.add_region(0, 1 << 28)
        topology = Topology()
        bus = topology.add_root_bus()
        for device in (2, 3):
            topology.add(PciFunction(Identity(0x8086, 0x10C9, 0x020000)), bus, device << 3)
        options = Options(caches=CachePolicy(iotlb=Shape(ways=4)))
        table = build_table(TABLE)
        self.platform = Platform.build(memory, topology, table, PROFILES["xeon"], options)
        self.drivers = []
        sources = (ALONE, OTHER)
        for number, unit in enumerate(self.platform.units.values()):
            frames = FramePool(0x10_0000 + number * 0x100_0000, 0x110_0000 + number * 0x100_0000)
            driver = Driver(unit, memory, frames, scalable=scalable)
            driver.start()
            domain = driver.domain(largest=12)
            domain.map(IOVA, DATA + number * 0x10_0000, 16 << 12, READ | WRITE)
            driver.attach(sources[number], domain)
            self.drivers.append(driver)

    def software(self, row: Any) -> None:
        """By the driver of the unit that the row is for."""
        by_driver(self.drivers[int(row["source_id"] == OTHER)])(row)


def reads(count: int, **columns: Any) -> Requests:
    """Reads of pages in turns."""
    addresses = IOVA + (np.arange(count) * 5 % 16 << 12)
    return new_rows(count, **{"address": addresses, "length": 64, "access": READ, **columns})


@pytest.mark.parametrize("scalable", [False, True], ids=["legacy", "scalable"])
def test_rows_go_to_the_unit_of_their_source(scalable: bool) -> None:
    together, apart = Machine(scalable=scalable), Machine(scalable=scalable)
    rows = reads(400, source_id=np.where(np.arange(400) % 3, ALONE, OTHER))
    rows["kind"][200], rows["target"][200], rows["access"][200] = RowKind.MAP, DATA, READ
    rows["address"][200] = IOVA + (20 << 12)
    rows["length"][200] = 0x1000
    outcomes = run(together.platform, rows, together.software)
    assert set(outcomes["status"].tolist()) == {Status.PASSED, Status.NOTHING}
    for number, (unit, source) in enumerate(
        zip(apart.platform.units.values(), (ALONE, OTHER), strict=True)
    ):
        mine = rows["source_id"] == source
        assert (run(unit, rows[mine], apart.software) == outcomes[mine]).all(), number
    assert together.platform.snapshot() == apart.platform.snapshot()


def test_a_source_without_unit_is_named() -> None:
    rows = reads(3, source_id=[ALONE, 0x1_0010, ALONE])
    with pytest.raises(ValueError, match=r"row 1, source_id: no unit covers 0001:00:02\.0"):
        run(Machine(scalable=False).platform, rows)


def test_what_unmaps_leave_goes_with_the_next_invalidation() -> None:
    machine = Machine(scalable=True)
    kinds = [RowKind.DMA, RowKind.UNMAP, RowKind.DMA, RowKind.INVALIDATE, RowKind.DMA]
    rows = reads(5, source_id=OTHER, kind=kinds, address=IOVA, length=0x1000)
    outcomes = run(machine.platform, rows, machine.software)
    passed = [Status.PASSED, Status.NOTHING, Status.PASSED, Status.NOTHING, Status.REFUSED]
    assert outcomes["status"].tolist() == passed
    with pytest.raises(DomainError, match="source-id 0x20, PASID None: not attached"):
        run(machine.platform, reads(1, source_id=0x20, kind=RowKind.UNMAP), machine.software)


def test_a_miss_is_explained_by_what_came_since_the_last_use() -> None:
    unit = next(iter(Machine(scalable=False).platform.units.values()))
    rows = reads(20, source_id=ALONE)
    first = explain_row(unit, rows, 0)
    assert first.cause == "miss: the first use of this page"
    again = explain_row(unit, rows, 17)
    assert again.cause == "miss: row 1 used this page, then 15 other pages of 4 ways"
    assert again.reads == 4
    assert again.request.walk is not None
    rows["address"][18] = rows["address"][17]
    assert explain_row(unit, rows, 18).cause == "hit: a page of 0x1000 bytes from 0x105000"


@pytest.mark.parametrize(
    ("number", "message"), [(3, "row 3: there are 3"), (1, "row 1, kind: it is no request")]
)
def test_what_is_no_request_can_not_be_explained(number: int, message: str) -> None:
    unit = next(iter(Machine(scalable=False).platform.units.values()))
    rows = reads(3, source_id=ALONE, kind=[RowKind.DMA, RowKind.MARKER, RowKind.DMA])
    with pytest.raises(ValueError, match=message):
        explain_row(unit, rows, number)
