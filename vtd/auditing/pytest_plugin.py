"""A pytest plugin: platforms whose audit fails the test, and what the tests of a run reached.

``vtd_platforms`` makes platforms, as a context manager that also goes with Hypothesis's
``@given``: any capabilities, options, memory size, number of units and cache policy.
``vtd_memory``, ``vtd_unit`` and ``vtd_platform`` are one such platform, and ``vtd_audit`` watches
it; findings fail the test itself. A mark chooses the unit: ``@pytest.mark.vtd_profile("xeon")``.
``--vtd-coverage`` reports the fault reasons and descriptors that the tests reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pagetables.memory import PhysicalMemory
    from pagetables.stores import ProcessorStores
    from vtd.auditing.unit_audit import UnitAudit
    from vtd.unit.caching.policy import CachePolicy
    from vtd.unit.options import Options
    from vtd.unit.port import UnitPort
    from vtd.unit.registers.capabilities import Capabilities
    from vtd.unit.unit import RemappingUnit

MEMORY_SIZE = 16 << 20
AUDITS = pytest.StashKey[list["UnitAudit"]]()
REACHED = pytest.StashKey["Reached"]()


class Reached:
    """What the tests of a run reached: fault reasons, and descriptors with their granularity."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.descriptors: Counter[str] = Counter()

    def watch(self, unit: RemappingUnit) -> None:
        """Count what happens to a unit."""
        from vtd.auditing.reached import Reaching  # noqa: PLC0415

        Reaching(unit, self.faults, self.descriptors)


class ConnectedPlatform:
    """Units in front of one memory, and a port for any source-id.

    ``unit`` is the first of ``units``; ``audits`` has theirs, if somebody watches. ``memory`` is
    that of software, which ``flush`` and ``drain`` its stores if they wait.
    """

    def __init__(
        self,
        units: list[RemappingUnit],
        memory: PhysicalMemory | ProcessorStores,
        shared: PhysicalMemory,
    ) -> None:
        self.units = units
        self.unit = units[0]
        self.memory = memory
        self._shared = shared
        self.audits: list[UnitAudit] = []

    def port(self, source_id: int, unit: int = 0) -> UnitPort:
        """The port of a device behind a unit, the first one by default."""
        from vtd.unit.port import UnitPort  # noqa: PLC0415 - loading pytest does not load the model

        return UnitPort(self.units[unit], self._shared, source_id)


PlatformFactory = Callable[..., AbstractContextManager[ConnectedPlatform]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--vtd-coverage``."""
    parser.getgroup("vtd").addoption(
        "--vtd-coverage",
        action="store_true",
        help="report the fault reasons and invalidation descriptors that the tests reached",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "vtd_profile(name): capabilities of the unit in vtd_unit")
    config.stash[REACHED] = Reached()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Findings are failures of the test itself, so that xfail counts them too."""
    result = yield
    audits = pyfuncitem.stash.get(AUDITS, [])
    findings = [str(finding) for audit in audits for finding in audit.findings]
    if findings:
        pytest.fail("\n".join(findings), pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What ``--vtd-coverage`` asks for."""
    config = terminalreporter.config
    if not config.getoption("--vtd-coverage"):
        return
    reached = config.stash[REACHED]
    terminalreporter.section("remapping units: reached by these tests")
    for title, counter in (("fault reasons", reached.faults), ("descriptors", reached.descriptors)):
        terminalreporter.line(f"{title}: {len(counter)}")
        for name, count in sorted(counter.items()):
            terminalreporter.line(f"  {count:6} {name}")
    from vtd.auditing.reached import DESCRIPTOR_KINDS, FAULT_REASONS  # noqa: PLC0415

    for title, all_of, counter in (
        ("fault reasons", FAULT_REASONS, reached.faults),
        ("descriptors", DESCRIPTOR_KINDS, reached.descriptors),
    ):
        missing = [name for name in all_of if name not in counter]
        terminalreporter.line(f"{title} not reached: {', '.join(missing) or 'none'}")


@pytest.fixture(scope="session")
def vtd_platforms(pytestconfig: pytest.Config) -> PlatformFactory:
    """Make platforms: ``with vtd_platforms(profile="xeon", units=2) as platform: ...``.

    ``profile`` or ``capabilities``; ``options`` or ``policy``, the name of a cache policy or a
    policy of your own (``aggressive``); ``memory_size`` in bytes; ``units``; ``audited``: findings
    at the end of the block raise an AssertionError that lists them; ``stores_wait``: units that do
    not snoop see stores once ``memory.flush(address, length)`` wrote their cache lines back, and
    with CAP.RWBF once write buffers were drained.
    """
    from pagetables.memory import PhysicalMemory  # noqa: PLC0415
    from pagetables.stores import UnsnoopedMemory  # noqa: PLC0415
    from vtd.auditing.unit_audit import audits_of  # noqa: PLC0415
    from vtd.unit.caching.policy import POLICIES  # noqa: PLC0415
    from vtd.unit.options import Options  # noqa: PLC0415
    from vtd.unit.port import UnitPort  # noqa: F401, PLC0415 - loaded now, not in the first example
    from vtd.unit.registers.capabilities import PROFILES  # noqa: PLC0415
    from vtd.unit.reporting.snooping import waiting_stores  # noqa: PLC0415
    from vtd.unit.unit import RemappingUnit  # noqa: PLC0415

    reached = pytestconfig.stash[REACHED]
    counting = pytestconfig.getoption("--vtd-coverage")

    @contextmanager
    def platforms(
        *,
        profile: str = "xeon",
        capabilities: Capabilities | None = None,
        options: Options | None = None,
        policy: str | CachePolicy = "aggressive",
        memory_size: int = MEMORY_SIZE,
        units: int = 1,
        audited: bool = True,
        stores_wait: bool = False,
    ) -> Iterator[ConnectedPlatform]:
        if profile not in PROFILES:
            raise pytest.UsageError(f"profile {profile!r}: not one of {', '.join(PROFILES)}")
        if isinstance(policy, str):
            if policy not in POLICIES:
                raise pytest.UsageError(f"policy {policy!r}: not one of {', '.join(POLICIES)}")
            policy = POLICIES[policy]
        memory = PhysicalMemory()
        memory.add_region(0, memory_size)
        having, chosen = capabilities or PROFILES[profile], options or Options(caches=policy)
        stores = waiting_stores(memory, [having]) if stores_wait else None
        made = [
            RemappingUnit(having, memory if stores is None else UnsnoopedMemory(stores), chosen)
            for _ in range(units)
        ]
        platform = ConnectedPlatform(made, stores or memory, memory)
        for unit in made if counting else ():
            reached.watch(unit)
        if audited:
            platform.audits = audits_of(made)
        yield platform
        findings = [str(each) for audit in platform.audits for each in audit.findings]
        if findings:
            raise AssertionError("\n".join(findings))

    return platforms


@pytest.fixture
def vtd_platform(
    request: pytest.FixtureRequest, vtd_platforms: PlatformFactory
) -> Iterator[ConnectedPlatform]:
    """A unit that caches all it may, 16 MiB of memory and ports for devices.

    The profile is ``xeon`` unless a mark says otherwise.
    """
    mark = request.node.get_closest_marker("vtd_profile")
    profile = mark.args[0] if mark is not None else "xeon"
    with vtd_platforms(profile=profile, audited=False) as platform:
        yield platform


@pytest.fixture
def vtd_unit(vtd_platform: ConnectedPlatform) -> RemappingUnit:
    """The unit of ``vtd_platform``."""
    return vtd_platform.unit


@pytest.fixture
def vtd_memory(vtd_platform: ConnectedPlatform) -> PhysicalMemory | ProcessorStores:
    """The memory of ``vtd_platform``, 16 MiB from address 0 on."""
    return vtd_platform.memory


@pytest.fixture
def vtd_audit(request: pytest.FixtureRequest, vtd_unit: RemappingUnit) -> Iterator[UnitAudit]:
    """An audit of the unit; what it finds fails the test."""
    from vtd.auditing.unit_audit import UnitAudit  # noqa: PLC0415

    audit = UnitAudit(vtd_unit)
    request.node.stash.setdefault(AUDITS, []).append(audit)
    yield audit
    audit.detach()
