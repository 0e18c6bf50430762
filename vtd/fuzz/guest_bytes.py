"""Bytes as EPT, as a VMCS, as a VPD: whatever they are, the result is an architected one."""

from __future__ import annotations

from pagetables.bits import Implementation
from pagetables.geometry import second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.walk import Stage, WalkFault, output, walk
from vtd.fuzz.ept_oracle import EptVerdict, ept_verdict
from vtd.fuzz.program import ProgramBytes
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES
from vtd.guest.x86.ept import EptFaultError, EptStage, ept_stage, walk_ept
from vtd.guest.x86.exits import VmExit
from vtd.guest.x86.fields import FIELDS
from vtd.guest.x86.judgement import judge
from vtd.guest.x86.outcomes import Entered, VmResult, VmxAbort
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import (
    CLEAR,
    LAUNCH_STATE,
    PLACES,
    REGION_SIZE,
    RegionError,
    pack,
    parse_region,
)

PROFILES_BY_NAME = [VMX_PROFILES[name] for name in sorted(VMX_PROFILES)]
ROOT, VMXON, VMCS = 1, 0x1000, 0x2000
INDEXES = (0, 1, 511)
LOW_BITS = (7, 7, 7, 3, 5, 1, 4, 2, 6, 0x407, 0x400, 0, 0x37, 0xB7, 0x87, 0x3F)
SECOND_STAGE = second_stage_geometry(
    4, Implementation(52, 16, frozenset({"sslps_1g", "sslps_2m", "sc"}))
)


class DisagreementError(Exception):
    """Two readings of the same bytes differ; the message says how."""


def walk_bytes(data: bytes) -> None:
    """A chain of tables with entries from ``data``: the oracle's verdict, and the second stage's.

    DisagreementError if the walk says something else, or leads elsewhere than a unit that accepts
    the same tables.
    """
    program = ProgramBytes(data)
    choice = program.take(1)
    caps = PROFILES_BY_NAME[choice % len(PROFILES_BY_NAME)]
    levels = 5 if caps.ept_vpid.levels_5 and choice & 0x80 else 4
    indexes = [INDEXES[program.take(1) % 3] for _ in range(levels)]
    gpa = sum(index << 12 + 9 * (levels - 1 - at) for at, index in enumerate(indexes)) | 0x123
    frames = {
        ROOT + at: {index: ROOT + 1 + at << 12 | (7 if at < levels - 1 else 0x37)}
        for at, index in enumerate(indexes)
    }
    while program.more:
        at = program.take(1)
        frames[ROOT + at % levels][indexes[at % levels]] = _entry(program)
    memory = PhysicalMemory()
    memory.add_region(ROOT << 12, levels << 12)
    for frame, entries in frames.items():
        for index, entry in entries.items():
            memory.write(frame << 12 | index << 3, entry.to_bytes(8, "little"))
    mode_based = bool(choice & 0x40)
    stage = ept_stage(ROOT << 12 | levels - 1 << 3 | 6, caps, mode_based=mode_based)
    expected = ept_verdict(frames, ROOT, gpa, levels, caps, mode_based=mode_based)
    found = _verdict(memory, stage, gpa)
    if found != expected:
        raise DisagreementError(f"EPT walk of {gpa:#x}: {found}, not {expected}")
    if levels == 4 and expected.kind == "page":
        _compare_with_second_stage(memory, gpa, expected)


def _entry(program: ProgramBytes) -> int:
    """An entry that is mostly sensible: the next table or a page, one bit turned over perhaps."""
    choice = program.take(1)
    entry = (program.take(1) & 7) << 12 | LOW_BITS[choice & 15]
    if choice & 0x10:
        entry ^= 1 << program.take(1) % 64
    if choice & 0xE0 == 0xE0:
        entry = program.value()
    return entry


def _verdict(memory: PhysicalMemory, stage: EptStage, gpa: int) -> EptVerdict:
    try:
        leaf = _, _, rights, _, _ = walk_ept(memory, stage, gpa)
    except EptFaultError as fault:
        return EptVerdict("violation" if fault.violation else "misconfiguration")
    return EptVerdict("page", output(leaf, gpa), rights & stage.tables.geometry.rights)


def _compare_with_second_stage(memory: PhysicalMemory, gpa: int, page: EptVerdict) -> None:
    """A unit that walks the same tables finds the same page, or does not accept them."""
    try:
        leaf = _, _, rights, _, _ = walk(memory, Stage(SECOND_STAGE, ROOT), gpa)
    except WalkFault:
        return
    if (output(leaf, gpa), rights & 3) != (page.physical, page.rights & 3):
        raise DisagreementError(f"second stage of {gpa:#x}: {output(leaf, gpa):#x}, not {page}")


def enter_bytes(data: bytes) -> None:
    """A VMCS whose fields are partly from ``data``: it enters exactly if no rule is broken.

    DisagreementError if it does something else, or the region is not read as it was written.
    """
    program = ProgramBytes(data)
    choice = program.take(1)
    caps = PROFILES_BY_NAME[choice % len(PROFILES_BY_NAME)]
    state = base_state(caps)
    region = bytearray(pack(state))
    while program.more:
        field = FIELDS[program.take(1) % len(FIELDS)]
        value = program.value()
        if field.size < 8 or value & 1:
            value = state[field.name] ^ 1 << value % (8 * field.size)
        at = PLACES[field.name]
        region[at : at + field.size] = (value & (1 << 8 * field.size) - 1).to_bytes(
            field.size, "little"
        )
    parsed = parse_region(bytes(region))
    if pack(parsed) != bytes(region):
        raise DisagreementError("a region is not given back as it was")
    _check_other_sizes(bytes(region), choice)
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 16)
    memory.write(VMXON, REVISION.to_bytes(4, "little"))
    memory.write(VMCS, bytes(region))
    cpu = LogicalProcessor(caps, memory)
    cpu.vmxon(VMXON)
    cpu.vmptrld(VMCS)
    entered = cpu.vmlaunch()
    if not isinstance(entered, Entered | VmExit | VmResult | VmxAbort):
        raise DisagreementError(f"VMLAUNCH: {entered}")
    judged = judge(parsed, caps)
    if judged.broken and (isinstance(entered, Entered) or _launched(memory)):
        raise DisagreementError(f"{judged.broken[0].name} is broken, and yet: {entered}")
    if isinstance(entered, VmResult) and not judged.broken and not judged.unknown:
        raise DisagreementError(f"no rule is broken, and yet: {entered}")


def _launched(memory: PhysicalMemory) -> bool:
    return memory.read(VMCS + LAUNCH_STATE, 4) != CLEAR.to_bytes(4, "little")


def _check_other_sizes(region: bytes, choice: int) -> None:
    """A cut region, or one of another revision, is refused."""
    revision = (REVISION + 1 + choice).to_bytes(4, "little")
    for other in (region[: REGION_SIZE - 1 - choice], revision + region[4:]):
        try:
            parse_region(other)
        except RegionError:
            continue
        raise DisagreementError("a region that is none is read")
