"""Each refusal of the planner is needed: what it refuses does harm when it is run all the same.

``ROWS`` has every reason for which a plan does not work, a plan that is refused for that alone, and
what a forced run of it shows. Words are those of the table in ``docs/passthrough.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from devices.capabilities import ExtendedCapabilityId
from devices.function import BME
from vtd.host import reasons
from vtd.host.attempts import MARK, Reach, try_everything
from vtd.host.guests import Passed
from vtd.host.plan import PAGE, read_plan
from vtd.host.planner import Judgement, judge
from vtd.host.reasons import REASONS, REFUSALS, Reason
from vtd.host.running import COMMAND, HostError, RunningHost
from vtd.host.surroundings import Surroundings
from vtd.machine.assembly import Assembly, assemble
from vtd.software.registers import NoAnswerError

DOCUMENT = Path(__file__).parents[3] / "docs" / "passthrough.md"
UNIT = 'profile = "xeon"'
A, B = "{ start = 0, ", "{ start = 0x80_0000, "
MACHINE = f"""
[[memory]]
start = 0
size = "64 MiB"
[[unit]]
{UNIT}
base = 0xfed9_0000
include_all = true
[[bridge]]
name = "left"
at = "00:1c.0"
kind = "root_port"
acs = true
[[bridge]]
name = "right"
at = "00:1d.0"
kind = "root_port"
acs = true
[[bridge]]
name = "old"
at = "00:1e.0"
kind = "pcie_to_pci"
[[function]]
name = "nic"
at = "left/00.0"
sriov = {{ total = 4, first_offset = 0x80, stride = 1 }}
vfs = 1
[[function]]
name = "disk"
at = "right/00.0"
[[function]]
name = "one"
at = "old/01.0"
[[function]]
name = "two"
at = "old/02.0"
[[function]]
name = "ats"
at = "00:04.0"
ats = true
[[function]]
name = "pri"
at = "00:05.0"
ats = {{ page_requests = 8 }}
[[function]]
name = "engine"
at = "00:06.0"
model = "dma_engine"
[[function]]
name = "raid"
at = "00:17.0"
[[region]]
start = 0x390_0000
size = 0x1_0000
devices = ["raid"]
[[guest]]
name = "a"
memory = [{A}size = "4 MiB" }}]
[[guest]]
name = "b"
memory = [{B}size = "4 MiB" }}]
"""


class Forced(NamedTuple):
    """A plan that is refused, running all the same."""

    host: RunningHost
    assembly: Assembly

    @property
    def subject(self) -> Passed:
        """The device that was given away last."""
        return self.host.passed[-1]

    def reach(self) -> Reach:
        """What that device reached."""
        return list(try_everything(self.host))[-1]

    def memory(self, guest: str, address: int) -> bytes:
        """What is in a guest's memory."""
        host = self.host.guests[guest].host_address(address)
        assert host is not None
        return self.host.physical.read(host, len(MARK))


Harm = Callable[[Forced], bool]


def reaches_nothing(forced: Forced) -> bool:
    reach = forced.reach()
    return bool(reach.missed) and not reach.granted


def misses_some(forced: Forced) -> bool:
    reach = forced.reach()
    return bool(reach.missed) and bool(reach.granted)


def sees_other_memory(forced: Forced) -> bool:
    reach = forced.reach()
    return reach.shared is False and not reach.missed


def reaches_everything(forced: Forced) -> bool:
    reach = forced.reach()
    return reach.touched == ("a",) and reach.any_interrupt and bool(reach.beyond)


def sends_any_interrupt(forced: Forced) -> bool:
    return forced.reach().any_interrupt


def loses_interrupts(forced: Forced) -> bool:
    return forced.reach().interrupt == "blocked"


def writes_to_the_first_guest(forced: Forced) -> bool:
    before = forced.memory("a", 0x3000)
    forced.subject.function.dma.write(0x3000, MARK)
    return forced.memory("a", 0x3000) == MARK != before


def is_not_there(forced: Forced) -> bool:
    return forced.host.passed == []


def cuts_off_what_is_behind(forced: Forced) -> bool:
    disk = forced.host.passed[0].function
    before = disk.dma.write(0x80_0000, MARK).ok
    bridge = forced.subject.function
    bridge.config.write(COMMAND, 2, bridge.command.value & ~BME)
    return before and not disk.dma.write(0x80_0000, MARK).ok


def takes_virtual_functions_away(forced: Forced) -> bool:
    virtual, physical = forced.host.passed
    before = virtual.function.dma.write(0, MARK).ok
    at = physical.function.config.find_extended_capability(ExtendedCapabilityId.SRIOV)
    assert at is not None
    physical.function.config.write(at + 8, 2, 0)  # VF Enable
    return before and not virtual.function.dma.write(0, MARK).ok


def does_without_its_region(forced: Forced) -> bool:
    return not forced.subject.function.dma.write(0x390_0000, MARK).ok


def writes_to_the_guest_instead(forced: Forced) -> bool:
    forced.subject.function.dma.write(0x390_0000, MARK)
    in_region = forced.host.physical.read(0x390_0000, len(MARK))
    return forced.memory("a", 0x390_0000) == MARK != in_region


def guest_destroys_the_tables(forced: Forced) -> bool:
    before = forced.subject.function.dma.write(0, MARK).ok
    processor = forced.host.processor(forced.subject.guest).guest
    for page in range(0x3F_0000, 0x40_0000, PAGE):  # as it may: nobody told it not to
        processor.store(page, bytes(PAGE))
    forced.subject.function.dma.write(PAGE, MARK)
    return before and forced.memory("a", PAGE) != MARK


def invalidations_never_end(forced: Forced) -> bool:
    domain = forced.subject.domain
    assert domain is not None
    with pytest.raises(NoAnswerError):
        domain.unmap(0, PAGE)
    return True


class Row(NamedTuple):
    """``given``: who gets which device with which policy; ``changes`` of the text above.

    A ``harm`` that is a text is what the host says when it can't go on.
    """

    reason: Reason
    given: tuple[tuple[str, str, str], ...]
    harm: Harm | str
    words: str
    changes: tuple[tuple[str, str], ...] = ()


def without(*flags: str, **values: int) -> tuple[str, str]:
    fields = dict.fromkeys(flags, 0) | values
    return UNIT, f"{UNIT}\nset = {{ {', '.join(f'{key} = {fields[key]}' for key in fields)} }}"


def viommu(kind: str, maps: str = "[]") -> tuple[str, str]:
    return 'name = "a"', f'name = "a"\nviommu = "{kind}"\nmaps = {maps}'


NOTHING = "the device reaches no memory: the unit refuses every request"
MAPS = "[{ device = 0x1_0000, guest = 0x2_0000, size = 0x1_0000 }]"
LARGE = ('size = "64 MiB"', 'size = "3 GiB"'), (A + 'size = "4 MiB"', A + 'size = "1 GiB"')
ROWS = (
    Row(reasons.NO_DEVICE, (("a", "ghost", ""),), is_not_there,
        "the guest starts without the device"),
    Row(reasons.BRIDGE, (("b", "disk", ""), ("a", "right", "")), cuts_off_what_is_behind,
        "one guest switches bus mastering of the bridge off: devices of others behind it stop"),
    Row(reasons.GIVEN, (("a", "disk", ""), ("b", "disk", "")), writes_to_the_first_guest,
        "the second guest has its device write to the memory of the first"),
    Row(reasons.NO_UNIT, (("a", "nic", ""), ("b", "disk", "")), reaches_everything,
        "its DMA reaches all memory of the host, other guests included, and it sends any interrupt",
        (("include_all = true", 'devices = ["nic", "raid"]'),)),
    Row(reasons.GROUP, (("a", "one", ""), ("b", "two", "")), writes_to_the_first_guest,
        "one member of the group writes to the memory of the other's guest"),
    Row(reasons.QUEUES, (("a", "disk:q0", ""), ("b", "disk:q1", "")), writes_to_the_first_guest,
        "a queue of the second guest writes to the memory of the first"),
    Row(reasons.PHYSICAL, (("b", "nic.vf0", ""), ("a", "nic", "")), takes_virtual_functions_away,
        "the guest with the physical function switches VFs off: those of others stop",
        ((B, "{ start = 0, "),)),
    Row(reasons.REGION, (("a", "raid", ""),), does_without_its_region,
        "the device can't reach its region: what firmware has it do faults"),
    Row(reasons.MEMORY_OVER_REGION, (("a", "raid", 'rmrr = "map"'),), writes_to_the_guest_instead,
        "what the device writes to its region changes memory of the guest",
        ((A + 'size = "4 MiB" }', A + 'size = "4 MiB" }, { start = 0x380_0000, size = "2 MiB" }'),
         ("0x390_0000\nsize = 0x1_0000", "0x390_0000\nsize = 0x1000"))),
    Row(reasons.NO_INTERRUPT_REMAPPING, (("a", "disk", ""),), sends_any_interrupt,
        "the device sends any interrupt", (without("ir", "eim", "pi", "mhmv"),)),
    Row(reasons.NO_SCALABLE_SECOND,
        (("a", "nic", 'stage = "first"'), ("a", "disk", 'page_size = "4K"')), reaches_nothing,
        NOTHING, ((UNIT, 'profile = "qemu-scalable-first"'),)),
    Row(reasons.NO_TABLES, (("a", "disk", ""),), reaches_nothing, NOTHING,
        (without("sagaw", "ssts", "nest", "ssads", "ssirws"),)),
    Row(reasons.ONE_NESTED, (("a", "disk", 'stage = "nested"'),), guest_destroys_the_tables,
        "the guest writes over tables in its memory that it knows nothing of: its device goes "
        "astray"),
    Row(reasons.ONE_NESTED, (("a", "disk", ""),), reaches_nothing,
        "what the guest maps in its own unit is not there for its device",
        (viommu("nested", MAPS), (A + "size = ", "{ start = 0x2_0000, size = "))),
    Row(reasons.NO_POSTING, (("a", "disk", 'interrupts = "posted"'),), loses_interrupts,
        "the unit blocks every interrupt of the device", (without("pi"),)),
    Row(reasons.NO_FIRST, (("a", "disk", 'stage = "first"'),), reaches_nothing, NOTHING,
        (without("fsts", "nest", "fs5lp", "fs1gp", "eafs"),)),
    Row(reasons.NO_NESTING, (("a", "disk", 'stage = "nested"'),), reaches_nothing, NOTHING,
        (without("nest"), viommu("nested"))),
    Row(reasons.NO_DEVICE_TLBS, (("a", "ats", "ats = true"),), reaches_nothing, NOTHING,
        (without("dt", "prs", "pds", "dit", "nwfs"),)),
    Row(reasons.NO_REQUESTS, (("a", "pri", 'ats = true, page_requests = true, memory = '
                                           '"page-requests"'),), reaches_nothing,
        "nobody answers the device: it reaches no memory that is not there", (without("prs"),)),
    Row(reasons.NO_PASIDS, (("a", "engine", "pasid = true"),), reaches_nothing, NOTHING,
        (without("pasid"),)),
    Row(reasons.NO_DIRTY, (("a", "disk", "dirty_tracking = true"),), reaches_nothing, NOTHING,
        (without("ssads"),)),
    Row(reasons.NO_2M, (("a", "disk", ""),), reaches_nothing, NOTHING, (without("sslps"),)),
    Row(reasons.NO_1G, (("a", "disk", 'page_size = "1G"'),), reaches_nothing, NOTHING,
        (without(sslps=1), *LARGE)),
    Row(reasons.NO_FIRST_1G, (("a", "disk", 'stage = "first", page_size = "1G"'),),
        reaches_nothing, NOTHING, (without("fs1gp"), *LARGE)),
    Row(reasons.WIDTH, (("b", "disk", ""),), reaches_nothing, NOTHING,
        (without(mgaw=38), (B, "{ start = 0x80_0000_0000, "),
         ("\n[[memory]]", "address_bits = 39\n[[memory]]"))),
    Row(reasons.WITHOUT["ats"], (("a", "disk", "ats = true"),), invalidations_never_end,
        "the device never answers invalidations of its device-TLB: unmapping never ends"),
    Row(reasons.WITHOUT["page_requests"],
        (("a", "ats", 'ats = true, page_requests = true, memory = "page-requests"'),),
        reaches_nothing, "the device never asks, so no memory is there for it"),
    Row(reasons.WITHOUT["pasid"], (("a", "disk", "pasid = true"),), misses_some,
        "the device sends no PASID: what the host set up for it there is not reached"),
    Row(reasons.HOST_MEMORY, (("a", "disk", ""), ("b", "nic", "")),
        "it can't be set up: no 0x3000000 bytes of memory are left in one piece",
        "the host can't start the guests",
        ((A + 'size = "4 MiB"', A + 'size = "20 MiB"'), (B + 'size = "4 MiB"',
                                                         B + 'size = "48 MiB"'))),
    Row(reasons.TABLE_ROOM, (("a", "disk", 'stage = "nested"'),),
        "no room for the first stage of a in its memory",
        "the guest has no memory for its own tables",
        (viommu("nested"), (A + 'size = "4 MiB"', A + "size = 0x3000"))),
    Row(reasons.UNASKED, (("a", "disk", 'memory = "page-requests"'),), reaches_nothing,
        "no memory is there, and the device can't ask for it"),
    Row(reasons.NESTED_REQUESTS,
        (("a", "pri", 'stage = "nested", ats = true, page_requests = true, memory = '
                      '"page-requests"'),),
        misses_some, "the host answers for the guest's stage, which has the page already; that "
        "of its own is still missing", (viommu("nested"),)),
    Row(reasons.REQUESTS_WITHOUT_ATS,
        (("a", "pri", 'page_requests = true, memory = "page-requests"'),), reaches_nothing,
        "the device never asks, so no memory is there for it"),
    Row(reasons.SHARED_FIRST, (("a", "disk", 'shared_tables = true, stage = "first"'),),
        sees_other_memory, "the processor can't run the guest on these tables"),
    Row(reasons.SHARED_SHADOW, (("a", "disk", "shared_tables = true"),), sees_other_memory,
        "processor and device see different memory at one address", (viommu("shadow", MAPS),)),
    Row(reasons.SHARED_UNSNOOPED, (("a", "disk", "shared_tables = true"),), reaches_nothing,
        "the unit reads tables as they were before the processor wrote them", (without("c"),)),
    Row(reasons.SHARED_UNSNOOPED, (("a", "engine", "shared_tables = true, pasid = true"),),
        reaches_nothing, "the same in scalable mode (SMPWCS = 0)",
        (without("smpwcs", "ssads", "eafs"),)),
)  # fmt: skip


def judged(row: Row) -> tuple[Judgement, Surroundings, Assembly]:
    text = MACHINE
    for old, new in row.changes:
        assert old in text
        text = text.replace(old, new, 1)
    for guest, device, policy in row.given:
        text += f'[[assign]]\nguest = "{guest}"\ndevices = ["{device}"]\npolicy = {{ {policy} }}\n'
    plan, machine = read_plan(text)
    assert machine is not None
    assembly = assemble(machine, stores_wait=True)
    around = Surroundings.of(assembly)
    return judge(plan, around), around, assembly


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.reason.name)
def test_what_is_refused_does_harm_when_it_is_forced(row: Row) -> None:
    judgement, around, assembly = judged(row)
    assert {each.reason for each in judgement.verdicts if each.stops} == {row.reason}
    with pytest.raises(HostError):
        RunningHost(judgement, around, assembly)
    if isinstance(row.harm, str):
        with pytest.raises(HostError, match=row.harm):
            RunningHost(judgement, around, assembly, forced=True)
    else:
        assert row.harm(Forced(RunningHost(judgement, around, assembly, forced=True), assembly))


def test_every_refusal_has_a_row_here_and_on_the_page() -> None:
    assert {row.reason for row in ROWS} == set(REFUSALS)
    listed = {each for each in vars(reasons).values() if isinstance(each, Reason)}
    assert set(REASONS) == listed | set(reasons.WITHOUT.values())
    assert len({each.name for each in REASONS}) == len(REASONS)
    page = DOCUMENT.read_text()
    for row in ROWS:
        assert f"| `{row.reason.name}` | {row.reason.rule.id} | {row.words} |" in page


@pytest.mark.section("3.10")
def test_a_page_that_left_shared_tables_unflushed_is_still_reached() -> None:
    judgement, around, assembly = judged(ROWS[-2])
    assert ROWS[-2].reason is reasons.SHARED_UNSNOOPED
    host = RunningHost(judgement, around, assembly, forced=True)
    assert assembly.stores is not None
    (passed,) = host.passed
    assert passed.domain is not None
    for line in list(assembly.stores.held):  # as processors write back in the course of time
        assembly.stores.flush(line * 64, 64)
    assert passed.function.dma.write(PAGE, MARK).ok
    passed.domain.unmap(PAGE, PAGE)  # the unit is told, and reads the old entry again
    assert passed.domain.physical(PAGE) is None
    assert passed.function.dma.write(PAGE, MARK).ok
