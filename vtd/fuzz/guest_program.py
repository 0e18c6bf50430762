"""Bytes as a program: what a hypervisor and its guest do, for fuzzers that know only bytes.

Every byte string is a program; VMCS fields, EPT entries and guest tables come from it, too. After
each change software invalidates everything, so a processor that caches mappings has to do what one
without a cache does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pagetables.memory import PhysicalMemory
from vtd.fuzz.program import INTERESTING, ProgramBytes
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES
from vtd.guest.x86.controls import EntryControls, PrimaryControls, SecondaryControls
from vtd.guest.x86.fields import FIELDS
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.mappings import Mappings
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import Vmcs, VmcsState, pack

MEMORY_SIZE = 0x1_0000
VMXON, VMCS, APIC_PAGE, APIC_ACCESS = 0x1000, 0x2000, 0x3000, 0x4000
TABLES = range(0x5000, 0x9000, 0x1000)
"""EPT tables, one after the other: guest-physical 0 to 1 MiB, each page to itself."""
LEAVES = (0, 0x37, 0x31, 0x35, 0x33, 0x137, 0x337, 0x36)
"""Low bits of the entries that software puts in: some are misconfigured."""
PROCESSORS = sorted(VMX_PROFILES)
ADDRESSES = (0, 0x5000, 0x4080, 0x40B0, 0x4300, 0x4310, 0xFFFC, 0x1_0000, 1 << 32, 1 << 47)


def run_guest_program(data: bytes, *, cached: bool) -> list[object]:
    """What every operation of a program comes to, and the memory at its end."""
    return list(_carry_out(data, Mappings(keep=cached)))


def _carry_out(data: bytes, mappings: Mappings) -> Iterator[object]:
    program = ProgramBytes(data)
    choice = program.take(1)
    capabilities = VMX_PROFILES[PROCESSORS[choice % len(PROCESSORS)]]
    memory = PhysicalMemory()
    memory.add_region(0, MEMORY_SIZE)
    memory.write(VMXON, REVISION.to_bytes(4, "little"))
    for table, below in zip(TABLES, (*TABLES[1:], None), strict=True):
        for index in range(16 if below is None else 1):
            entry = index << 12 | 0x37 if below is None else below | 7
            memory.write(table + 8 * index, entry.to_bytes(8, "little"))
    cpu = LogicalProcessor(capabilities, memory, mappings=mappings)
    cpu.vmxon(VMXON)
    memory.write(VMCS, pack(_state(cpu, choice >> 4)))
    cpu.vmptrld(VMCS)
    while program.more:
        yield _operation(cpu, memory, program)
        if cpu.shutdown:
            break
    yield [memory.read(start, 0x1000) for start in range(0, MEMORY_SIZE, 0x1000)]


def _state(cpu: LogicalProcessor, choice: int) -> VmcsState:
    """A guest with EPT, some of whose features follow from ``choice``."""
    capabilities = cpu.capabilities
    state = base_state(capabilities)
    apic = choice & 1
    secondary = SecondaryControls.of(
        ept=True,
        unrestricted_guest=True,
        vpid=choice >> 1 & 1,
        virtualize_apic_accesses=apic,
        virtual_interrupt_delivery=apic,
        apic_register_virtualization=apic,
    )
    primary = PrimaryControls(state.primary_controls).replace(
        secondary_controls=True, tpr_shadow=apic, hlt_exiting=choice >> 2 & 1
    )
    allowed = capabilities.allowed("secondary")[1]
    flags = 0x40 if choice >> 3 & 1 else 0
    return state.replace(
        {
            "primary_controls": int(primary),
            "secondary_controls": int(secondary) & allowed,
            "eptp": TABLES[0] | 0x1E | flags,
            "virtual_apic_address": APIC_PAGE if apic else 0,
            "apic_access_address": APIC_ACCESS if apic else 0,
            "entry_controls": int(
                EntryControls(state.entry_controls).replace(ia32e_mode_guest=False)
            ),
            "guest_cr0": 0x31,
            "guest_efer": 0,
            "guest_cs_access_rights": 0xC09B,
            "guest_rflags": 0x202,
        }
    )


def _operation(cpu: LogicalProcessor, memory: PhysicalMemory, program: ProgramBytes) -> object:
    operation = program.take(1)
    if cpu.guest is not None and operation & 7 < 6:
        outcome = _guest_operation(cpu.guest, operation, program)
        if operation & 7 == 1:  # it may have written to tables
            _invalidate(cpu)
        return outcome
    if operation & 7 == 6:
        address, value = _change(program)
        memory.write(address, value.to_bytes(8, "little"))
        _invalidate(cpu)
        return None
    if operation & 7 == 7:
        field = FIELDS[program.take(1) % len(FIELDS)]
        Vmcs(memory, VMCS).write(field, program.value())
        _invalidate(cpu)
        return None
    return _instruction(cpu, operation >> 3, program)


def _change(program: ProgramBytes) -> tuple[int, int]:
    """Where software stores a number: most often in an entry of EPT."""
    where = program.take(2)
    if where & 3 == 0:
        return where & MEMORY_SIZE - 8, program.value()
    choice = program.take(1)
    rights = LEAVES[choice >> 4 & 7]
    return TABLES[-1] + (where >> 2 & 15) * 8, rights and rights | (choice & 15) << 12


def _invalidate(cpu: LogicalProcessor) -> None:
    """All that software can owe, and more: nothing is cached any more."""
    cpu.mappings.invept()
    cpu.mappings.invvpid_all()
    cpu.mappings.invvpid(0)


def _address(program: ProgramBytes) -> int:
    """An address that means something to the guest, or any."""
    kind = program.take(1)
    if kind < 32:
        return program.value()
    return ADDRESSES[kind % len(ADDRESSES)] + program.take(1)


def _guest_operation(guest: Guest, operation: int, program: ProgramBytes) -> object:
    kind = operation & 7
    if kind == 0:
        return guest.load(_address(program), 1 << (operation >> 3 & 3))
    if kind == 1:
        return guest.store(_address(program), program.value().to_bytes(8, "little"))
    if kind == 2:
        return guest.fetch(_address(program))
    argument = program.take(1)
    events: tuple[Callable[[], object], ...] = (
        lambda: guest.write_cr8(argument & 0x1F),
        guest.read_cr8,
        lambda: guest.interrupt(argument),
        guest.nmi,
        guest.boundary,
        guest.instruction,
        guest.hlt,
        guest.cpuid,
        lambda: guest.set_interrupt_flag(bool(argument & 1)),
        lambda: guest.read_msr(0x800 + argument),
        lambda: guest.write_msr(0x800 + argument, program.value()),
        lambda: guest.read_msr(program.value() & 0xFFFF_FFFF),
        lambda: guest.write_cr3(program.value()),
        lambda: guest.invlpg(program.value()),
        lambda: guest.port(argument << 8, 4, read=bool(argument & 1)),
        lambda: guest.raise_exception(argument & 31),
    )
    return events[(operation >> 3) % len(events)]()


def _instruction(cpu: LogicalProcessor, number: int, program: ProgramBytes) -> object:
    value = INTERESTING[program.take(1) % len(INTERESTING)]
    instructions: tuple[Callable[[], object], ...] = (
        cpu.vmlaunch,
        cpu.vmresume,
        lambda: cpu.vmclear(VMCS),
        lambda: cpu.vmptrld(VMCS),
        cpu.vmptrst,
        lambda: cpu.vmread(program.take(2)),
        lambda: cpu.vmwrite(program.take(2), value),
        lambda: cpu.vmclear(value),
        lambda: cpu.vmptrld(value),
        lambda: cpu.invept(program.take(1) & 3, value),
        lambda: cpu.invvpid(program.take(1) & 7, value & 0x1_FFFF, value),
        cpu.vmcall,
        cpu.vmlaunch,
        cpu.vmresume,
    )
    return instructions[number % len(instructions)]()
