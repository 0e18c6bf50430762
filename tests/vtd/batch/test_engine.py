"""The batch engine does what the unit does, request by request."""

import subprocess
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="needs the batch extra")
pytest.importorskip("numba", reason="needs the batch extra")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from devices.dma import ATOMIC, READ, WRITE, Request  # noqa: E402
from scripts import bench  # noqa: E402
from scripts.batch_exactness import trial  # noqa: E402
from tests.support.world import Mode, World  # noqa: E402
from vtd.batch.columns import Requests, RowKind, new_rows  # noqa: E402
from vtd.batch.engine import run  # noqa: E402
from vtd.batch.outcomes import Status  # noqa: E402
from vtd.unit.observer import Observer  # noqa: E402
from vtd.unit.reporting.events import RequestBlocked  # noqa: E402
from vtd.unit.requests.faults import FaultReason  # noqa: E402


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_batch_is_the_same_as_its_requests_one_by_one(seed: int) -> None:
    assert trial(seed, 200).differences == []


def test_an_atomic_is_aligned_by_its_whole_address() -> None:
    world = World(Mode.LEGACY)
    addresses = [(1 << 64) - 4, (1 << 64) - 1, (1 << 64) - 3]  # modulo 3: 0, 0, 1
    rows = new_rows(3, address=addresses, length=3, access=ATOMIC)
    rows["source_id"] = world.request.source_id
    beyond = int(FaultReason.ADDRESS_BEYOND_WIDTH)
    assert run(world.start().unit, rows)["reason"].tolist() == [beyond, beyond, 0]


@pytest.mark.slow
def test_so_it_is_for_a_million_requests() -> None:
    seed = done = 0
    while done < 1_000_000:
        result = trial(seed, 3000)
        assert result.differences == [], seed
        seed, done = seed + 1, done + result.requests


def reads(world: World, count: int) -> Requests:
    """The request of a world, so many times."""
    request = world.request
    rows = new_rows(
        count, address=request.address, length=4, access=READ, source_id=request.source_id
    )
    if request.pasid is not None:
        rows["pasid"] = request.pasid
    return rows


@pytest.fixture(params=Mode, ids=lambda mode: mode.value)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_pages_come_from_the_tables_once_and_then_from_the_iotlb(world: World) -> None:
    outcomes = run(world.start().unit, reads(world, 3))
    assert outcomes["status"].tolist() == [Status.PASSED] * 3
    assert outcomes["hit"].tolist() == [0, 1, 1]
    assert outcomes["reads"][0] > 0
    assert not outcomes["reads"][1:].any()
    assert len({*outcomes["address"].tolist()}) == 1


def test_ports_made_before_and_after_use_the_same_caches(world: World) -> None:
    started = world.start()
    unit, before = started.unit, started.port()
    first = before.request(world.request)
    assert first.ok
    assert run(unit, reads(world, 1))["hit"].tolist() == [1]
    misses = unit.caches.iotlb.counters.misses
    assert before.request(world.request) == first
    assert started.port().request(world.request) == first
    assert unit.caches.iotlb.counters.misses == misses


def test_a_unit_that_is_observed_is_asked_request_by_request() -> None:
    class Begun(Observer):
        count = 0

        def begin(self, request: Request) -> None:
            self.count += 1

    world, observer = World(Mode.LEGACY), Begun()
    unit = world.start().unit
    unit.observe(observer)
    run(unit, reads(world, 5))
    assert observer.count == 5


@pytest.mark.section("6.2.4")
@pytest.mark.parametrize("after", [bytes(8), None], ids=["unmapped", "left"])
def test_a_zero_length_read_of_a_cached_page_that_is_only_written_asks_no_table(
    after: bytes | None,
) -> None:
    world = World(Mode.LEGACY)
    leaf, _ = world.places["second1"]
    value = int.from_bytes(world.memory.read(leaf, 8), "little")
    world.memory.write(leaf, (value & ~READ).to_bytes(8, "little"))
    unit, rows = world.start().unit, reads(world, 2)
    rows["access"], rows["length"] = [WRITE, READ], [4, 0]
    run(unit, rows[:1])
    if after is not None:
        world.memory.write(leaf, after)
    (outcome,) = run(unit, rows[1:])
    assert (outcome["status"], outcome["hit"], outcome["reads"]) == (Status.PASSED, 1, 0)


def test_a_transfer_is_cut_at_pages_and_refused_for_its_first_refused_part() -> None:
    world = World(Mode.LEGACY)
    rows = reads(world, 2)
    rows["address"] = world.address + 0xF00
    entry, _ = world.places["second1"]
    world.memory.write(entry + 8, bytes(16))  # nothing is mapped behind this page
    rows["length"], rows["access"] = 0x1200, [READ, WRITE]
    started = world.start()
    outcomes = run(started.unit, rows)
    assert outcomes["status"].tolist() == [Status.REFUSED] * 2
    assert outcomes["reason"].tolist() == [FaultReason.READ_DENIED, FaultReason.WRITE_DENIED]
    assert outcomes["address"].tolist() == [0, 0]
    blocked = [each.request for each in started.events if isinstance(each, RequestBlocked)]
    last = int(rows["address"][0] & 0xFFFF_FFFF_FFFF_F000)
    assert [each.address - last for each in blocked] == [0x1000, 0x1000, 0x2000]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("kind", 9, "row 1, kind: 9 is unknown"),
        ("kind", RowKind.MAP, "row 1, kind: MAP needs software"),
        ("attributes", 0x86, "row 1, attributes: 0x86 is unknown"),
    ],
)
def test_a_row_that_there_is_not_is_named(column: str, value: int, message: str) -> None:
    world = World(Mode.LEGACY)
    rows = reads(world, 3)
    rows[column][1] = value
    with pytest.raises(ValueError, match=message):
        run(world.start().unit, rows)


def test_another_array_is_refused() -> None:
    with pytest.raises(ValueError, match="an array of type REQUESTS is needed, not float64"):
        run(World(Mode.LEGACY).start().unit, np.zeros(3))


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "batch.md").read_text()
    example = page.split("```python\n")[1].split("```")[0].replace("1_000_000", "1_000")
    made = bench.machine()
    (unit,) = made.platform.units.values()
    source_id = made.platform.topology.requester_id(made.function)
    exec(example, {"unit": unit, "source_id": source_id})
    assert capsys.readouterr().out.startswith("0.488 ")  # 512 pages are new


def test_without_numba_the_extra_is_named() -> None:
    code = "import sys; sys.modules['numba'] = None; import vtd.batch.engine"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "vtd.batch needs the batch extra: pip install '.[batch]'"
    )


def test_the_unit_does_not_load_numba() -> None:
    code = "import sys, vtd.platform, vtd.cli; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
