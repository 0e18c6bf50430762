"""Isolation groups of small machines; what has to come out was written down from the rules first.

Rules: pci_device_group in drivers/iommu/iommu.c, pci_acs_enabled in drivers/pci/pci.c, and the
devices of drivers/pci/quirks.c of Linux.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import Acs, PciFunction, PciTree
from vtd.inspection.isolation_groups import isolation_groups

KINDS = {
    "root": "Root Port (Slot+)",
    "up": "Upstream Port",
    "down": "Downstream Port (Slot+)",
    "end": "Endpoint",
    "legacy": "Legacy Endpoint",
    "rc": "Root Complex Integrated Endpoint",
    "topci": "PCI-Express to PCI/PCI-X Bridge",
}
ALL = "SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans+"
ON = "SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-"
OFF = "SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-"
NO_REDIRECT = "SrcValid+ TransBlk- ReqRedir- CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-"


def f(
    bdf: str,
    kind: str = "",
    buses: str = "",
    acs: tuple[str, str] | None = None,
    ids: str = "1af4:1000",
    more: str = "",
) -> str:
    """One function as ``lspci -vvv -nn`` shows it to root."""
    name = "PCI bridge [0604]" if buses else "Unclassified device [00ff]"
    lines = [f"{bdf} {name}: Acme [{ids}]", "\tStatus: Cap+ 66MHz-"]
    if buses:
        secondary, subordinate = buses.split("-")
        lines.append(f"\tBus: primary=00, secondary={secondary}, subordinate={subordinate}")
    lines.append("\tCapabilities: [40] Power Management version 3")
    if kind:
        lines.append(f"\tCapabilities: [50] Express (v2) {KINDS[kind]}, MSI 00")
    if acs:
        lines += ["\tCapabilities: [140 v1] Access Control Services"]
        lines += [f"\t\tACSCap:\t{acs[0]}", f"\t\tACSCtl:\t{acs[1]}"]
    return "\n".join([*lines, *([more] if more else []), ""])


GOOD, BAD, HALF, EMPTY = (ALL, ON), (ALL, OFF), (ALL, NO_REDIRECT), (OFF, OFF)
VFS = (
    "\tCapabilities: [160 v1] Single Root I/O Virtualization (SR-IOV)\n"
    "\t\tIOVCtl:\tEnable+ Migration-\n"
    "\t\tInitial VFs: 2, Total VFs: 2, Number of VFs: 2, Function Dependency Link: 00\n"
    "\t\tVF offset: 16, stride: 1, Device ID: 1001"
)


class Machine(NamedTuple):
    """A listing, and what has to come out of it."""

    name: str
    listing: tuple[str, ...]
    groups: str
    reason: str = ""


MACHINES = [
    Machine("one port with ACS", (f("00:1c.0", "root", "01-01", GOOD), f("01:00.0", "end")),
            "00:1c.0 / 01:00.0"),
    Machine("one port without ACS", (f("00:1c.0", "root", "01-01"), f("01:00.0", "end")),
            "00:1c.0 01:00.0", "0000:00:1c.0 has no ACS capability"),
    Machine("ACS there but off", (f("00:1c.0", "root", "01-01", BAD), f("01:00.0", "end")),
            "00:1c.0 01:00.0", "has ACS with SrcValid, ReqRedir, CmpltRedir, UpstreamFwd off"),
    Machine("one bit off", (f("00:1c.0", "root", "01-01", HALF), f("01:00.0", "end")),
            "00:1c.0 01:00.0", "has ACS with ReqRedir off"),
    Machine("bits that are not there count as wired",
            (f("00:1c.0", "root", "01-01", EMPTY), f("01:00.0", "end")), "00:1c.0 / 01:00.0"),
    Machine("two functions without ACS",
            (f("00:1c.0", "root", "01-01", GOOD), f("01:00.0", "end"), f("01:00.1", "end")),
            "00:1c.0 / 01:00.0 01:00.1", "functions of one device"),
    Machine("two functions with ACS",
            (f("00:1c.0", "root", "01-01", GOOD), f("01:00.0", "end", acs=EMPTY),
             f("01:00.1", "end", acs=EMPTY)), "00:1c.0 / 01:00.0 / 01:00.1"),
    Machine("two functions, only one has ACS: each is alone in lacking or having it",
            (f("00:1c.0", "root", "01-01", GOOD), f("01:00.0", "end"),
             f("01:00.1", "end", acs=EMPTY)), "00:1c.0 / 01:00.0 / 01:00.1"),
    Machine("two functions the maker vouches for",
            (f("00:1c.0", "root", "01-01", GOOD), f("01:00.0", "end", ids="8086:1521"),
             f("01:00.1", "end", ids="8086:1521")), "00:1c.0 / 01:00.0 / 01:00.1"),
    Machine("a PCH port that Linux knows",
            (f("00:1c.0", "root", "02-02", ids="8086:8c10"), f("02:00.0", "end")),
            "00:1c.0 / 02:00.0"),
    Machine("two ports of one device, without ACS",
            (f("00:01.0", "root", "01-01"), f("00:01.1", "root", "02-02"), f("01:00.0", "end"),
             f("02:00.0", "end")), "00:01.0 00:01.1 01:00.0 02:00.0"),
    Machine("two ports of one device, with ACS",
            (f("00:01.0", "root", "01-01", GOOD), f("00:01.1", "root", "02-02", GOOD),
             f("01:00.0", "end"), f("02:00.0", "end")), "00:01.0 / 00:01.1 / 01:00.0 / 02:00.0"),
    Machine("a switch with ACS",
            (f("00:01.0", "root", "01-04", GOOD), f("01:00.0", "up", "02-04"),
             f("02:01.0", "down", "03-03", GOOD), f("02:02.0", "down", "04-04", GOOD),
             f("03:00.0", "end"), f("04:00.0", "end")),
            "00:01.0 / 01:00.0 / 02:01.0 / 02:02.0 / 03:00.0 / 04:00.0"),
    Machine("a switch whose downstream ports lack ACS",
            (f("00:01.0", "root", "01-04", GOOD), f("01:00.0", "up", "02-04"),
             f("02:01.0", "down", "03-03"), f("02:02.0", "down", "04-04"),
             f("03:00.0", "end"), f("04:00.0", "end")),
            "00:01.0 / 01:00.0 / 02:01.0 03:00.0 / 02:02.0 04:00.0"),
    Machine("a switch below a port without ACS",
            (f("00:01.0", "root", "01-04"), f("01:00.0", "up", "02-04"),
             f("02:01.0", "down", "03-03", GOOD), f("03:00.0", "end")),
            "00:01.0 01:00.0 02:01.0 03:00.0"),
    Machine("conventional PCI behind a bridge",
            (f("00:1c.0", "root", "05-06", GOOD), f("05:00.0", "topci", "06-06"), f("06:00.0"),
             f("06:01.0")), "00:1c.0 / 05:00.0 06:00.0 06:01.0", "carry an id of the bridge"),
    Machine("conventional PCI on the root bus", (f("00:1e.0", "", "05-05"), f("05:02.0")),
            "00:1e.0 05:02.0"),
    Machine("conventional functions of one device",
            (f("00:1f.0"), f("00:1f.2"), f("00:1f.3"), f("00:14.0")),
            "00:14.0 / 00:1f.0 00:1f.2 00:1f.3"),
    Machine("Intel integrated endpoints",
            (f("00:02.0", "rc", ids="8086:9a49"), f("00:14.0", "rc", ids="8086:a0ed"),
             f("00:14.2", "rc", ids="8086:a0ef")), "00:02.0 / 00:14.0 / 00:14.2"),
    Machine("integrated endpoints of others",
            (f("00:14.0", "rc"), f("00:14.2", "rc")), "00:14.0 00:14.2"),
    Machine("virtual functions behind a port with ACS",
            (f("00:1c.0", "root", "01-01", GOOD), f("01:00.0", "end", more=VFS),
             f("01:02.0", "end"), f("01:02.1", "end")),
            "00:1c.0 / 01:00.0 / 01:02.0 / 01:02.1"),
    Machine("virtual functions behind a port without ACS",
            (f("00:1c.0", "root", "01-01"), f("01:00.0", "end", more=VFS), f("01:02.0", "end")),
            "00:1c.0 01:00.0 01:02.0"),
    Machine("a domain behind VMD",
            (f("0000:00:0e.0", "rc", ids="8086:467f", more="\tKernel driver in use: vmd"),
             f("10000:e0:06.0", "root", "e1-e1", GOOD), f("10000:e1:00.0", "end")),
            "00:0e.0 10000:e0:06.0 10000:e1:00.0", "id of the VMD controller"),
    Machine("a SATA controller that sends as function 1",
            (f("00:1c.0", "root", "07-07", GOOD), f("07:00.0", "end", acs=EMPTY, ids="1b4b:9128"),
             f("07:00.1", "end", acs=EMPTY, ids="1b4b:91a4")),
            "00:1c.0 / 07:00.0 07:00.1", "requests of 0000:07:00.0 may carry its id"),
    Machine("a card reader that sends as function 0",
            (f("00:1c.0", "root", "07-07", GOOD), f("07:00.0", "end", acs=EMPTY, ids="1180:e822"),
             f("07:00.3", "end", acs=EMPTY, ids="1180:e832")),
            "00:1c.0 / 07:00.0 07:00.3", "requests of 0000:07:00.3 may carry its id"),
    Machine("an accelerator that sends for what is behind it, beside one that does not",
            (f("00:1c.0", "root", "07-07", GOOD), f("07:00.0", "end", acs=EMPTY, ids="8086:2260"),
             f("07:10.0", "end", acs=EMPTY), f("07:10.1", "end", acs=EMPTY)),
            "00:1c.0 / 07:00.0 07:10.0 / 07:10.1"),
]  # fmt: skip


def named(groups: tuple[tuple[Bdf, ...], ...]) -> str:
    return " / ".join(" ".join(str(bdf).removeprefix("0000:") for bdf in group) for group in groups)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_groups_are_those_of_linux(machine: Machine) -> None:
    found = isolation_groups(parse_pci_tree("\n".join(machine.listing)))
    assert named(found.groups) == machine.groups
    assert not found.unknown
    assert not machine.reason or any(machine.reason in join.reason for join in found.joins)


def test_the_override_shows_groups_that_still_share() -> None:
    listing = (f("00:1c.0", "root", "01-01"), f("01:00.0", "end"), f("01:00.1", "end"))
    found = isolation_groups(parse_pci_tree("\n".join(listing)))
    assert named(found.groups) == "00:1c.0 01:00.0 01:00.1"
    assert named(found.overridden()) == "00:1c.0 / 01:00.0 / 01:00.1"


def test_what_is_not_shown_counts_as_shared_and_is_said() -> None:
    text = "\n".join((f("00:1c.0", "root", "01-01", GOOD), f("01:00.0", "end")))
    hidden = text.replace("\t\tACSC", "\t\tX")
    found = isolation_groups(parse_pci_tree(hidden))
    assert named(found.groups) == "00:1c.0 01:00.0"
    (unknown,) = found.unknown
    assert "not shown with the bits of its ACS" in unknown.reason


def test_the_shifted_control_of_a_100_series_port_is_not_read_off_the_listing() -> None:
    text = "\n".join((f("00:1c.0", "root", "01-01", GOOD, "8086:a110"), f("01:00.0", "end")))
    found = isolation_groups(parse_pci_tree(text))
    assert [each.known for each in found.joins] == [False]
    assert found.trusted == ()


functions = st.builds(
    PciFunction,
    st.builds(Bdf, st.just(0), st.builds(lambda s: Bdf.parse(s).source_id,
              st.sampled_from(["00:01.0", "00:01.1", "01:00.0", "01:00.1", "02:00.0", "03:01.0"]))),
    secondary_bus=st.none() | st.integers(0, 3),
    express_type=st.none() | st.sampled_from([0, 4, 5, 6, 7, 9]),
    acs=st.none() | st.builds(Acs, st.integers(0, 0x7F), st.integers(0, 0x7F)),
    express_known=st.booleans(),
    acs_known=st.booleans(),
    group=st.none() | st.integers(0, 2),
)  # fmt: skip


@given(st.lists(functions, max_size=6))
def test_every_function_is_in_one_group_and_joins_stay_inside(listed: list[PciFunction]) -> None:
    tree = PciTree(listed)
    found = isolation_groups(tree)
    members = [bdf for group in found.groups for bdf in group]
    assert sorted(members) == sorted(tree.functions)
    place = {bdf: number for number, group in enumerate(found.groups) for bdf in group}
    assert all(place[join.first] == place[join.second] for join in found.joins)
    assert len(found.overridden()) >= len(found.groups)
