"""A pytest plugin: a platform, its memory, and an audit that fails the test at its end.

Fixtures: ``vtd_memory`` is 16 MiB of memory, ``vtd_unit`` a remapping unit in front of it, and
``vtd_platform`` connects devices to both. ``vtd_audit`` watches the unit; a stale use fails the
test when it is torn down. A mark chooses the unit: ``@pytest.mark.vtd_profile("xeon")``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pagetables.memory import PhysicalMemory
    from vtd.auditing.audit import Audit
    from vtd.unit.port import UnitPort
    from vtd.unit.unit import RemappingUnit

MEMORY_SIZE = 16 << 20


class ConnectedPlatform:
    """One unit and its memory, and a port for any source-id."""

    def __init__(self, unit: RemappingUnit, memory: PhysicalMemory) -> None:
        self.unit = unit
        self.memory = memory

    def port(self, source_id: int) -> UnitPort:
        """The port of a device behind the unit."""
        from vtd.unit.port import UnitPort  # noqa: PLC0415 - loading pytest does not load the model

        return UnitPort(self.unit, self.memory, source_id)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "vtd_profile(name): capabilities of the unit in vtd_unit")


@pytest.fixture
def vtd_memory() -> PhysicalMemory:
    """16 MiB of memory from address 0 on."""
    from pagetables.memory import PhysicalMemory  # noqa: PLC0415

    memory = PhysicalMemory()
    memory.add_region(0, MEMORY_SIZE)
    return memory


@pytest.fixture
def vtd_unit(request: pytest.FixtureRequest, vtd_memory: PhysicalMemory) -> RemappingUnit:
    """A unit that caches all it may; the profile is ``xeon`` unless a mark says otherwise."""
    from vtd.unit.caching.policy import AGGRESSIVE  # noqa: PLC0415
    from vtd.unit.options import Options  # noqa: PLC0415
    from vtd.unit.registers.capabilities import PROFILES  # noqa: PLC0415
    from vtd.unit.unit import RemappingUnit  # noqa: PLC0415

    mark = request.node.get_closest_marker("vtd_profile")
    name = mark.args[0] if mark is not None else "xeon"
    if name not in PROFILES:
        raise pytest.UsageError(f"vtd_profile {name!r}: not one of {', '.join(PROFILES)}")
    return RemappingUnit(PROFILES[name], vtd_memory, Options(caches=AGGRESSIVE))


@pytest.fixture
def vtd_platform(vtd_unit: RemappingUnit, vtd_memory: PhysicalMemory) -> ConnectedPlatform:
    """The unit, its memory and ports for devices."""
    return ConnectedPlatform(vtd_unit, vtd_memory)


@pytest.fixture
def vtd_audit(vtd_unit: RemappingUnit) -> Iterator[Audit]:
    """An audit of the unit; fails the test at its end if an invalidation was missing."""
    from vtd.auditing.audit import Audit  # noqa: PLC0415

    audit = Audit(vtd_unit)
    yield audit
    if audit.findings:
        pytest.fail("\n".join(map(str, audit.findings)), pytrace=False)
