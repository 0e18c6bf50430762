"""The fixtures, and the audit that fails a test at its end."""

from __future__ import annotations

import pytest

from vtd.auditing.pytest_plugin import ConnectedPlatform

pytest_plugins = ("pytester",)

STALE = """
import pytest
pytest_plugins = ()

@pytest.mark.vtd_profile("client")
def test_forgets(vtd_platform, vtd_audit):
    memory, unit = vtd_platform.memory, vtd_platform.unit
    for address, value in ((0x1000, 0x2001), (0x2080, 0x10001), (0x2088, 0x702)):
        memory.write(address, value.to_bytes(8, "little"))
    tables = (0x10000, 0x11003), (0x11000, 0x12003), (0x12000, 0x13003), (0x13000, 0x80003)
    for address, value in tables:
        memory.write(address, value.to_bytes(8, "little"))
    unit.write_register(0x20, 8, 0x1000)
    unit.write_register(0x18, 4, 1 << 30)
    unit.write_register(0x18, 4, 1 << 31)
    port = vtd_platform.port(8)
    assert port.write(0, b"1").ok
    if FORGET:
        memory.write(0x13000, bytes(8))
        port.write(0, b"2")
"""


def test_a_platform_has_memory_and_ports(vtd_platform: ConnectedPlatform) -> None:
    assert vtd_platform.port(8).write(0x1000, b"direct").ok
    assert vtd_platform.memory.read(0x1000, 6) == b"direct"


@pytest.mark.parametrize("forget", [False, True])
def test_what_the_audit_finds_fails_the_test_itself(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, forget: bool
) -> None:
    monkeypatch.setenv(
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"
    )  # loaded once, wherever it is installed
    pytester.makepyfile(f"FORGET = {forget}\n{STALE}")
    result = pytester.runpytest_subprocess(
        "-p", "vtd.auditing.pytest_plugin", "-p", "no:cacheprovider"
    )
    if forget:
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*missing page-selective iotlb_inv of domain 7*"])
    else:
        result.assert_outcomes(passed=1)


MORE = """
import pytest
from hypothesis import given, strategies as st
from vtd.layouts.descriptors import DeviceTlbInvalidateDescriptor, IotlbInvalidateDescriptor
from vtd.layouts.registers import IotlbGranularity
from vtd.software.queue_driver import QueueDriver
pytest_plugins = ()

def tables(memory, source_id=8):
    for address, value in ((0x1000, 0x2001), (0x2000 + source_id * 16, 0x10001),
                           (0x2008 + source_id * 16, 0x702), (0x10000, 0x11003),
                           (0x11000, 0x12003), (0x12000, 0x13003), (0x13000, 0x80003)):
        memory.write(address, value.to_bytes(8, "little"))

def start(unit):
    unit.write_register(0x20, 8, 0x1000)
    unit.write_register(0x18, 4, 1 << 30)
    unit.write_register(0x18, 4, 1 << 31)

@pytest.mark.xfail(strict=True)
@pytest.mark.vtd_profile("client")
def test_known(vtd_platform, vtd_audit):
    tables(vtd_platform.memory)
    start(vtd_platform.unit)
    port = vtd_platform.port(8)
    assert port.write(0, b"1").ok
    vtd_platform.memory.write(0x13000, bytes(8))
    port.write(0, b"2")

def device_tlb(platform, told):
    # of a device that has the translation of a page that goes
    memory, unit = platform.memory, platform.unit
    tables(memory)
    memory.write(0x2080, (0x10005).to_bytes(8, "little"))
    start(unit)
    queue = QueueDriver(unit, memory, 0x20000, 0x21000)
    queue.enable()
    unit.write_register(0x18, 4, 1 << 31 | 1 << 26)
    port = platform.port(8)
    given = port.translate(0, 1).entries[0]
    memory.write(0x13000, bytes(8))
    queue.submit(IotlbInvalidateDescriptor.of(g=IotlbGranularity.DOMAIN, did=7))
    if told:
        queue.submit(DeviceTlbInvalidateDescriptor.of(sid=8, s=True, addr=0x7FFF_FFFF_FFFF_F000))
    assert queue.wait()
    if not told:
        port.write_translated(given.address, b"x")

@pytest.mark.xfail(strict=True)
@pytest.mark.vtd_profile("viommu")
def test_device_tlb_forgotten(vtd_platform, vtd_audit):
    device_tlb(vtd_platform, told=False)

@pytest.mark.vtd_profile("viommu")
def test_device_tlb_told(vtd_platform, vtd_audit):
    device_tlb(vtd_platform, told=True)

@given(st.binary(min_size=1, max_size=8))
def test_given(vtd_platforms, data):
    with vtd_platforms(profile="client", memory_size=1 << 20, policy="default") as platform:
        tables(platform.memory)
        start(platform.unit)
        assert platform.port(8).write(0, data).ok

def test_two_units_owe_two_invalidations(vtd_platforms):
    with pytest.raises(AssertionError, match="missing page-selective iotlb_inv"):
        with vtd_platforms(profile="client", units=2) as platform:
            tables(platform.memory)
            for unit in platform.units:
                start(unit)
            for number in range(2):
                assert platform.port(8, number).read(0, 4).ok
            platform.memory.write(0x13000, bytes(8))
            register = platform.unit.capabilities.iotlb_offset + 8
            platform.unit.write_register(register, 8, 1 << 63 | 2 << 60 | 7 << 32)
            for number in range(2):
                platform.port(8, number).read(0, 4)

def waiting(vtd_platforms, flushes):
    with vtd_platforms(profile="client", stores_wait=True) as platform:
        tables(platform.memory)
        if flushes:
            platform.memory.flush(0x1000, 0x13000)
        start(platform.unit)
        assert platform.port(8).read(0, 4).ok is flushes

def test_stores_that_are_flushed(vtd_platforms):
    waiting(vtd_platforms, True)

@pytest.mark.xfail(strict=True, raises=AssertionError)
def test_stores_that_wait(vtd_platforms):
    waiting(vtd_platforms, False)

def test_wrong_names(vtd_platforms):
    with pytest.raises(pytest.UsageError), vtd_platforms(profile="none"):
        pass
    with pytest.raises(pytest.UsageError), vtd_platforms(policy="none"):
        pass
"""


def test_factories_go_with_given_xfail_and_several_units(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(MORE)
    result = pytester.runpytest(
        "-p", "vtd.auditing.pytest_plugin", "-p", "no:cacheprovider", "--vtd-coverage"
    )
    result.assert_outcomes(passed=5, xfailed=3)
    result.stdout.fnmatch_lines(
        [
            "*reached by these tests*",
            "fault reasons: 2",
            "*01h*",
            "*06h*",
            "descriptors: 3",
            "*1 dev_tlb_inv",
            "*2 inv_wait",
            "*2 iotlb_inv DOMAIN",
            "descriptors not reached: cc_inv GLOBAL, *",
        ]
    )
