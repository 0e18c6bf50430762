"""Expectations on VMX as cases in a form of our own, and what carries them out.

A case is a dictionary: ``suite``, ``kind``, what the kind needs, and ``expect``. Numbers are
hexadecimal strings. ``entry`` cases start from the ordinary guest of the profile ``kut``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pagetables.memory import PhysicalMemory
from vtd.guest.x86.apic import ICR_HIGH, TPR
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES, FeatureControl
from vtd.guest.x86.entry import check_entry
from vtd.guest.x86.entry_rules import Entry, Group
from vtd.guest.x86.exits import ExitReason, VmExit
from vtd.guest.x86.outcomes import NOTHING, UD, CpuException, Delivered, Entered, VmResult
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import NO_POINTER, pack

Case = dict[str, Any]

KUT = VMX_PROFILES["kut"]
BASE = base_state(KUT)
MEMORY_SIZE = 1 << 24
VMXON, VMCS, SHADOW, VMREAD_BITMAP, VMWRITE_BITMAP = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
VIRTUAL_APIC, APIC_ACCESS, MSR_BITMAP = 0x6000, 0x7000, 0x8000
MAGIC = 0x1234_5678


def new_memory() -> PhysicalMemory:
    """Memory of zeros for a case."""
    memory = PhysicalMemory()
    memory.add_region(0, MEMORY_SIZE)
    return memory


def on_processor(memory: PhysicalMemory) -> LogicalProcessor:
    """A processor in VMX root operation."""
    cpu = LogicalProcessor(KUT, memory)
    memory.write(VMXON, REVISION.to_bytes(4, "little"))
    assert cpu.vmxon(VMXON) == VmResult(0)
    return cpu


def run_guest(values: dict[str, int], memory: PhysicalMemory) -> LogicalProcessor:
    """A processor that runs the ordinary guest, unpaged, with these fields."""
    cpu = on_processor(memory)
    # Unrestricted and unpaged, EPT that map everything to itself.
    memory.write(0x9000, (0xA007).to_bytes(8, "little"))
    memory.write(0xA000, b"".join((n << 30 | 0xB7).to_bytes(8, "little") for n in range(4)))
    controls = {
        "secondary_controls": values.get("secondary_controls", 0) | 0x82,
        "primary_controls": values.get("primary_controls", BASE.primary_controls) | 1 << 31,
    }
    if not values.get("plain"):
        values = values | controls | {"eptp": 0x901E} | UNPAGED
    values.pop("plain", None)
    memory.write(VMCS, pack(BASE.replace(values)))
    assert cpu.vmptrld(VMCS).flags == 0  # type: ignore[union-attr]
    entered = cpu.vmlaunch()
    assert isinstance(entered, Entered), entered
    return cpu


UNPAGED = {
    "guest_cr0": 0x31,
    "guest_efer": 0,
    "entry_controls": BASE.entry_controls & ~(1 << 9),
    "guest_cs_access_rights": 0xC09B,
}


def carry_out(case: Case) -> bool:
    """Whether the model does what a case expects."""
    return KINDS[case["kind"]](case)


def _numbers(values: dict[str, str]) -> dict[str, int]:
    return {name: int(value, 16) for name, value in values.items()}


def _entry(case: Case) -> bool:
    memory = new_memory()
    for address, data in case.get("memory", {}).items():
        memory.write(int(address, 16), bytes.fromhex(data))
    state = BASE.replace(_numbers(case["fields"]))
    check = check_entry(Entry(state, KUT, memory))
    expect = case["expect"]
    if expect == "passes":
        return check.error is None
    if expect == "enters":
        return check.enters
    if expect == "guest":
        return check.group is Group.GUEST and check.qualification == 0
    if expect == "fails":
        return check.error is not None
    return check.error in expect


def _invvpid(case: Case) -> bool:
    cpu = on_processor(new_memory())
    memory = cpu.memory
    memory.write(VMCS, pack(BASE))
    cpu.vmptrld(VMCS)
    result = cpu.invvpid(case["type"], int(case["descriptor"], 16), int(case["address"], 16))
    return result == VmResult(0) if case["expect"] == "passes" else result == VmResult(0x40, 28)


def _invvpid_mode(case: Case) -> bool:
    cpu = on_processor(new_memory())
    if case["mode"] == "compatibility":
        cpu.registers.compatibility_mode = True
    else:
        cpu.vmxoff()
    return cpu.invvpid(2, 0) == CpuException(UD)


def _shadow(case: Case) -> bool:
    """VMREAD or VMWRITE of a field in a guest with VMCS shadowing."""
    memory = new_memory()
    field = int(case["field"], 16)
    memory.write(VMREAD_BITMAP, b"\0" * 4096 if case["read"] else b"\xff" * 4096)
    memory.write(VMWRITE_BITMAP, b"\0" * 4096 if case["write"] else b"\xff" * 4096)
    link = SHADOW if case["link"] else NO_POINTER
    memory.write(SHADOW, pack(BASE, revision=REVISION | 1 << 31))
    cpu = run_guest(
        {
            "secondary_controls": 1 << 14,
            "vmcs_link_pointer": link,
            "vmread_bitmap": VMREAD_BITMAP,
            "vmwrite_bitmap": VMWRITE_BITMAP,
        },
        memory,
    )
    expect = case["expect"]
    if case["value"] is not None:
        guest, cpu.guest = cpu.guest, None
        cpu.vmptrld(SHADOW)
        cpu.vmwrite(field, int(case["value"], 16))
        cpu.vmptrld(VMCS)
        cpu.guest = guest
    result = cpu.vmread(field) if case["access"] == "read" else cpu.vmwrite(field, 0)
    if "exits" in expect:
        wanted = ExitReason.VMREAD if case["access"] == "read" else ExitReason.VMWRITE
        exited = isinstance(result, VmExit) and result.reason == wanted
        return exited is expect["exits"]
    assert isinstance(result, VmResult), result
    if "flags" in expect:
        return result.flags == int(expect["flags"], 16)
    if "error" in expect:
        cpu.guest = None
        return cpu.vmread(0x4400) == VmResult(0, None, expect["error"])
    if case["access"] == "read":
        return result.value == int(expect["value"], 16)
    cpu.guest = None
    cpu.vmptrld(SHADOW)
    return cpu.vmread(field) == VmResult(0, None, int(expect["value"], 16))


APIC_MODES = {
    "accesses": (0x1, False),
    "accesses and shadow": (0x1, True),
    "registers": (0x101, True),
    "none": (0x0, True),
}
"""Secondary controls, and TPR shadow."""
REGISTER_BITS = {TPR: 0xF0, ICR_HIGH: 0xFF00_0000}
"""What the tests compare of registers with reserved bits."""


def _apic(case: Case) -> bool:
    """A 32-bit access to the APIC-access page."""
    return all(_apic_in(case, mode) for mode in case["modes"])


def _apic_in(case: Case, mode: str) -> bool:
    memory = new_memory()
    secondary, shadow = APIC_MODES[mode]
    cpu = run_guest(
        {
            "secondary_controls": secondary,
            "primary_controls": BASE.primary_controls | (1 << 21 if shadow else 0),
            "virtual_apic_address": VIRTUAL_APIC,
            "apic_access_address": APIC_ACCESS,
        },
        memory,
    )
    guest, offset = cpu.guest, int(case["offset"], 16)
    assert guest is not None  # it entered
    data = MAGIC.to_bytes(4, "little")
    virtual, plain = VIRTUAL_APIC + offset, APIC_ACCESS + offset
    expect = case["expect"]
    if case["access"] == "read":
        memory.write(plain if mode == "none" else virtual, data)
        result = guest.load(plain, 4)
        if expect == "exit":
            return result == VmExit(ExitReason.APIC_ACCESS, offset)
        assert isinstance(result, bytes), result
        bits = REGISTER_BITS.get(offset, -1) if mode != "none" else -1
        return int.from_bytes(result, "little") & bits == int(expect, 16) & bits
    result = guest.store(plain, data)
    if expect == "exit":
        return result == VmExit(ExitReason.APIC_ACCESS, offset | 1 << 12)
    if case["result"] == "write exit":
        stored = memory.read(virtual, 4) == int(expect, 16).to_bytes(4, "little")
        return stored and result == VmExit(ExitReason.APIC_WRITE, offset)
    number = int.from_bytes(memory.read(plain if mode == "none" else virtual, 4), "little")
    if mode != "none":
        number &= REGISTER_BITS.get(offset, -1)
    return result == NOTHING and number == int(expect, 16)


def _x2apic(case: Case) -> bool:
    """An access to an x2APIC MSR, everything virtualized that can be."""
    memory = new_memory()
    cpu = run_guest(
        {
            "secondary_controls": 1 << 4 | 1 << 8 | 1 << 9,
            "primary_controls": BASE.primary_controls | 1 << 21 | 1 << 28,
            "virtual_apic_address": VIRTUAL_APIC,
            "msr_bitmap": MSR_BITMAP,
        },
        memory,
    )
    guest, offset = cpu.guest, int(case["offset"], 16)
    assert guest is not None  # it entered
    msr = 0x800 + (offset >> 4)
    expect = case["expect"]
    if case["access"] == "read":
        memory.write(VIRTUAL_APIC + offset, MAGIC.to_bytes(4, "little"))
        value = guest.read_msr(msr)
        mask = 0xF0 if offset in (TPR, 0xA0) else -1
        return isinstance(value, int) and value & mask == int(expect, 16) & mask
    result = guest.write_msr(msr, int(case["value"], 16))
    if expect == "gp":
        return result == CpuException(13, 0)
    if case.get("exits"):
        return result == VmExit(ExitReason.APIC_WRITE, offset)
    stored: int | None = int.from_bytes(memory.read(VIRTUAL_APIC + offset, 4), "little")
    if case.get("processors"):
        stored = cpu.local_apic.read(msr)
    return result == NOTHING and stored == int(expect, 16)


def delivering(memory: PhysicalMemory, values: dict[str, int]) -> LogicalProcessor:
    """A guest with virtual-interrupt delivery and interrupts enabled."""
    return run_guest(
        {
            "secondary_controls": 1 << 9,
            "primary_controls": BASE.primary_controls | 1 << 21,
            "virtual_apic_address": VIRTUAL_APIC,
            "guest_rflags": 0x202,
            **values,
        },
        memory,
    )


def set_irr(memory: PhysicalMemory, vector: int) -> None:
    """Request a vector in the virtual-APIC page."""
    address = VIRTUAL_APIC + 0x200 + 16 * (vector >> 5)
    word = int.from_bytes(memory.read(address, 4), "little") | 1 << (vector & 31)
    memory.write(address, word.to_bytes(4, "little"))


def _task_priority(case: Case) -> bool:
    """A vector against every task priority: delivered exactly when its class is higher."""
    vector = int(case["vector"], 16)
    for tpr in range(256):
        memory = new_memory()
        memory.write(VIRTUAL_APIC + TPR, bytes([tpr]))
        set_irr(memory, vector)
        guest = delivering(memory, {"guest_interrupt_status": vector}).guest
        assert guest is not None  # it entered
        delivered = guest.boundary() == Delivered(vector)
        if delivered is not (vector >> 4 > tpr >> 4):
            return False
    return True


def _eoi(case: Case) -> bool:
    """A vector, then the EOI, which exits or lets each lower vector follow."""
    vector = int(case["vector"], 16)
    for low in range(int(case["lowest"], 16), vector):
        memory = new_memory()
        set_irr(memory, vector)
        set_irr(memory, low)
        bitmaps = {}
        if case["exits"]:
            bitmaps[f"eoi_exit_bitmap_{vector >> 6}"] = 1 << (vector & 63)
        cpu = delivering(memory, {"guest_interrupt_status": vector, **bitmaps})
        guest = cpu.guest
        assert guest is not None  # it entered
        guest.entry.secondary = guest.entry.secondary.replace(virtualize_x2apic_mode=True)
        if guest.boundary() != Delivered(vector):
            return False
        guest.entry.primary = guest.entry.primary.replace(msr_bitmaps=True)
        result = guest.write_msr(0x80B, 0)
        if case["exits"]:
            if result != VmExit(ExitReason.VIRTUALIZED_EOI, vector):
                return False
        elif result != NOTHING or guest.boundary() != Delivered(low):
            return False
    return True


def _in_service(case: Case) -> bool:
    """Every vector in service at once: EOIs end them from the highest down."""
    memory = new_memory()
    for vector in range(33, 256):
        address = VIRTUAL_APIC + 0x100 + 16 * (vector >> 5)
        word = int.from_bytes(memory.read(address, 4), "little") | 1 << (vector & 31)
        memory.write(address, word.to_bytes(4, "little"))
    guest = delivering(memory, {"guest_interrupt_status": 0xFF00}).guest
    assert guest is not None and guest.apic is not None  # it entered
    for vector in range(255, 32, -1):
        if guest.apic.svi != vector or guest.apic.virtualize_eoi() is not None:
            return False
    return guest.apic.svi == 0


def _capabilities(case: Case) -> bool:
    return not VMX_PROFILES[case["profile"]].check()


def _basic(case: Case) -> bool:
    return BASICS[case["name"]]()


def _vmxon(pointer: int, revision: int = REVISION) -> VmResult | object:
    memory = new_memory()
    memory.write(pointer & 0xFF_F000, revision.to_bytes(4, "little"))
    return LogicalProcessor(KUT, memory).vmxon(pointer)


def _pointer(name: str, pointer: int, error: int | None, revision: int = REVISION) -> bool:
    """VMCLEAR or VMPTRLD with a pointer, without and with a current VMCS."""
    for current in (False, True):
        memory = new_memory()
        cpu = on_processor(memory)
        memory.write(VMCS, REVISION.to_bytes(4, "little"))
        if current:
            cpu.vmptrld(VMCS)
        if pointer < MEMORY_SIZE and not pointer & 0xFFF and pointer != VMXON:
            memory.write(pointer, revision.to_bytes(4, "little"))
        result = getattr(cpu, name)(pointer)
        wanted = VmResult(0)
        if error is not None:
            wanted = VmResult(0x40, error) if current else VmResult(1)
        if result != wanted:
            return False
    return True


def _cookies(current: int, active: int) -> bool:
    """Three VMCSs hold what was written to each, whichever is current."""
    memory = new_memory()
    cpu = on_processor(memory)
    regions = [0x10_0000 + 0x1000 * number for number in range(max(active, current) + 1)]
    for number, region in enumerate(regions):
        memory.write(region, REVISION.to_bytes(4, "little"))
        cpu.vmclear(region)
        cpu.vmptrld(region)
        cpu.vmwrite(0x681E, 0x1111 * (number + 1))
    cpu.vmptrld(regions[current])
    return cpu.vmread(0x681E) == VmResult(0, None, 0x1111 * (current + 1))


def _tsc_offset(read: int, write: int) -> bool:
    memory = new_memory()
    cpu = on_processor(memory)
    memory.write(VMCS, REVISION.to_bytes(4, "little"))
    cpu.vmptrld(VMCS)
    cpu.vmwrite(0x2010, 0x1122_3344_5566_7788)
    value = 0x1122_3344_5566_7788
    if write & 1:
        cpu.vmwrite(write, 0xAABB_CCDD_0102_0304)
        value = 0x0102_0304_5566_7788
    return cpu.vmread(read) == VmResult(0, None, value >> 32 if read & 1 else value)


def _vmptrst() -> bool:
    memory = new_memory()
    cpu = on_processor(memory)
    if cpu.vmptrst() != VmResult(0, None, NO_POINTER):
        return False
    memory.write(VMCS, REVISION.to_bytes(4, "little"))
    cpu.vmptrld(VMCS)
    return cpu.vmptrst() == VmResult(0, None, VMCS)


def _error_of_vmxon_pointer() -> bool:
    memory = new_memory()
    cpu = on_processor(memory)
    memory.write(VMCS, REVISION.to_bytes(4, "little"))
    cpu.vmptrld(VMCS)
    return cpu.vmptrld(VMXON) == VmResult(0x40, 10) and cpu.vmread(0x4400) == VmResult(0, None, 10)


def _feature_control(value: int) -> VmResult | object:
    memory = new_memory()
    memory.write(VMXON, REVISION.to_bytes(4, "little"))
    cpu = LogicalProcessor(KUT, memory)
    cpu.feature_control = FeatureControl(value)
    return cpu.vmxon(VMXON)


def _mov_ss(*, current: bool) -> bool:
    memory = new_memory()
    cpu = on_processor(memory)
    if current:
        memory.write(VMCS, pack(BASE))
        cpu.vmptrld(VMCS)
    cpu.registers.blocked_by_mov_ss = True
    return cpu.vmlaunch() == (VmResult(0x40, 26) if current else VmResult(1))


def _error_after_invvpid(descriptor: int) -> VmResult | object:
    """VM-instruction error after INVVPID, which was 12 before."""
    cpu = on_processor(new_memory())
    cpu.memory.write(VMCS, pack(BASE))
    cpu.vmptrld(VMCS)
    cpu.vmread(0xFFFF_FFFF)
    cpu.invvpid(1, descriptor)
    return cpu.vmread(0x4400)


TOO_HIGH = 1 << 40
BASICS: dict[str, Callable[[], bool]] = {
    "vmxon unaligned": lambda: _vmxon(VMXON | 1) == VmResult(1),
    "vmxon too high": lambda: _vmxon(TOO_HIGH | VMXON) == VmResult(1),
    "vmxon revision": lambda: _vmxon(VMXON, REVISION + 1) == VmResult(1),
    "feature control cleared": lambda: _feature_control(0) == CpuException(13, 0),
    "feature control unlocked": lambda: _feature_control(4) == CpuException(13, 0),
    "feature control locked": lambda: not on_processor(new_memory()).write_msr(0x3A, 0),
    "feature control": lambda: _feature_control(5) == VmResult(0),
    "vmxon": lambda: _vmxon(VMXON) == VmResult(0),
    "vmclear unaligned": lambda: _pointer("vmclear", VMCS | 1, 2),
    "vmclear too high": lambda: _pointer("vmclear", TOO_HIGH | VMCS, 2),
    "vmclear vmxon": lambda: _pointer("vmclear", VMXON, 3),
    "vmclear": lambda: _pointer("vmclear", VMCS, None),
    "vmptrld unaligned": lambda: _pointer("vmptrld", VMCS | 1, 9),
    "vmptrld too high": lambda: _pointer("vmptrld", TOO_HIGH | VMCS, 9),
    "vmptrld vmxon": lambda: _pointer("vmptrld", VMXON, 10),
    "vmptrld vmxon error": _error_of_vmxon_pointer,
    "vmptrld revision": lambda: _pointer("vmptrld", 0x10_0000, 11, REVISION + 1),
    "vmptrld": lambda: _pointer("vmptrld", VMCS, None),
    "vmptrst": _vmptrst,
    "vmxoff": lambda: on_processor(new_memory()).vmxoff() == VmResult(0),
    "ept of 4 levels": lambda: bool(KUT.ept_vpid.levels_4),
    "invvpid failed 28": lambda: _error_after_invvpid(0) == VmResult(0, None, 28),
    "invvpid successful 12": lambda: _error_after_invvpid(1) == VmResult(0, None, 12),
    "movss without VMCS": lambda: _mov_ss(current=False),
    "movss": lambda: _mov_ss(current=True),
    **{
        f"tsc offset {read} {write}": partial(_tsc_offset, 0x2010 | read, 0x2010 | write)
        for read in (0, 1)
        for write in (0, 1)
    },
    **{
        f"cookie {current} {active}": partial(_cookies, current, active)
        for current in range(4)
        for active in range(4)
    },
}

KINDS: dict[str, Callable[[Case], bool]] = {
    "entry": _entry,
    "invvpid": _invvpid,
    "invvpid mode": _invvpid_mode,
    "shadow": _shadow,
    "apic": _apic,
    "x2apic": _x2apic,
    "task priority": _task_priority,
    "eoi": _eoi,
    "in service": _in_service,
    "capabilities": _capabilities,
    "basic": _basic,
}
