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
def test_the_audit_judges_at_teardown(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, forget: bool
) -> None:
    monkeypatch.setenv(
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"
    )  # loaded once, wherever it is installed
    pytester.makepyfile(f"FORGET = {forget}\n{STALE}")
    result = pytester.runpytest("-p", "vtd.auditing.pytest_plugin", "-p", "no:cacheprovider")
    if forget:
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*missing page-selective iotlb_inv of domain 7*"])
    else:
        result.assert_outcomes(passed=1)
