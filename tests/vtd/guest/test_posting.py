"""Posted interrupts: processing, and every interleaving of posting, delivery, EOI and migration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from devices.interrupt_messages import RemappableAddress
from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from tests.vtd.guest.machine import DESCRIPTOR, VIRTUAL_APIC, Machine, state_of
from vtd.guest.x86.apic import IRR
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES
from vtd.guest.x86.exits import ExitReason, VmExit
from vtd.guest.x86.outcomes import NOTHING, Delivered, Entered, VmResult
from vtd.guest.x86.posting import (
    Notification,
    post,
    read_descriptor,
    resume_on,
    suppress,
    take,
    wake_with,
)
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import Vmcs, pack
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor as Descriptor
from vtd.layouts.interrupt_entries import PostedIrte
from vtd.layouts.registers import InterruptRemappingTableAddress
from vtd.unit.caching.policy import UNCACHED
from vtd.unit.interrupts.outcome import Posted
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.unit import RemappingUnit

POSTED = (
    "primary.tpr_shadow",
    "secondary.virtual_interrupt_delivery",
    "pin.posted_interrupts",
    "exit.acknowledge_interrupt",
)
NV, WAKE_UP = 0xF2, 0xF1
IRT = 0xD000
"""Interrupt-remapping table of the unit."""


def running(*names: str, off: tuple[str, ...] = (), **values: int) -> Machine:
    machine = Machine()
    fields = {
        "virtual_apic_address": VIRTUAL_APIC,
        "posted_interrupt_descriptor_address": DESCRIPTOR,
        "posted_interrupt_vector": NV,
        "guest_rflags": 0x202,
    }
    machine.run(*POSTED, *names, off=off, **{**fields, **values})
    machine.memory.write(DESCRIPTOR, Descriptor.of(nv=NV, ndst=0).pack())
    return machine


def posting_unit(machine: Machine) -> RemappingUnit:
    """A remapping unit on the machine's memory with one entry that posts vector 41h."""
    irte = PostedIrte.of(p=True, im=True, vv=0x41, pdal=DESCRIPTOR, sid=0x0108)
    machine.memory.write(IRT, irte.pack())
    unit = RemappingUnit(capabilities(), machine.memory, Options(caches=UNCACHED))
    unit.write_register(0xB8, 8, InterruptRemappingTableAddress.of(irta=IRT, s=0))
    unit.write_register(0x18, 4, 1 << 24)
    unit.write_register(0x18, 4, 1 << 25)
    return unit


class TestWithTheUnit:
    """A device's MSI: the unit posts, the processor takes."""

    def test_a_posted_msi_reaches_the_guest_without_an_exit(self) -> None:
        machine = running()
        unit = posting_unit(machine)
        address = RemappableAddress.for_handle(0, shv=False)
        posted = UnitPort(unit, machine.memory, 0x0108).write(address, bytes(4)).interrupt
        assert isinstance(posted, Posted) and posted.notification is not None
        assert machine.guest.interrupt(posted.notification.vector) == NOTHING
        assert machine.guest.boundary() == Delivered(0x41)

    def test_without_posted_interrupts_the_notification_exits(self) -> None:
        machine = running(off=("pin.posted_interrupts",))
        unit = posting_unit(machine)
        address = RemappableAddress.for_handle(0, shv=False)
        posted = UnitPort(unit, machine.memory, 0x0108).write(address, bytes(4)).interrupt
        assert isinstance(posted, Posted) and posted.notification is not None
        assert machine.guest.interrupt(posted.notification.vector) == VmExit(1)
        assert read_descriptor(machine.memory, DESCRIPTOR).pir == 1 << 0x41


class TestProcessing:
    def test_the_notification_vector_causes_no_exit(self) -> None:
        machine = running()
        assert post(machine.memory, DESCRIPTOR, 0x41) == Notification(NV, 0)
        assert machine.guest.interrupt(NV) == NOTHING
        assert machine.cpu.local_apic.eois == 1
        assert read_descriptor(machine.memory, DESCRIPTOR) == Descriptor.of(nv=NV)
        assert machine.guest.boundary() == Delivered(0x41)

    def test_other_vectors_exit_with_their_number(self) -> None:
        machine = running()
        assert machine.guest.interrupt(0x41) == VmExit(ExitReason.EXTERNAL_INTERRUPT)
        assert machine.field("exit_interruption_info") == 0x8000_0041

    @pytest.mark.parametrize("vector", range(33, 256))
    def test_every_vector_against_every_class(self, vector: int) -> None:
        machine = running() if vector % 8 == 1 else SHARED
        guest = machine.guest
        assert guest.apic is not None
        for tpr in range(0, 0x100, 0x10):
            machine.memory.write(VIRTUAL_APIC, bytes(0x400))
            machine.memory.write(VIRTUAL_APIC + 0x80, bytes([tpr]))
            guest.apic.rvi = guest.apic.svi = 0
            guest.apic.virtualize_ppr()
            post(machine.memory, DESCRIPTOR, vector)
            guest.interrupt(NV)
            wanted = Delivered(vector) if vector >> 4 > tpr >> 4 else NOTHING
            assert guest.boundary() == wanted

    def test_requests_merge(self) -> None:
        machine = running(guest_interrupt_status=0x31)
        machine.memory.write(VIRTUAL_APIC + IRR + 0x10, (1 << 0x11).to_bytes(4, "little"))
        for vector in (0x45, 0x85, 0x33):
            post(machine.memory, DESCRIPTOR, vector)
        machine.guest.interrupt(NV)
        apic = machine.guest.apic
        assert apic is not None
        assert apic.rvi == 0x85
        assert apic.bits(IRR) == sum(1 << each for each in (0x31, 0x33, 0x45, 0x85))

    def test_nothing_posted_leaves_the_request_alone(self) -> None:
        machine = running(guest_interrupt_status=0x31)
        machine.guest.interrupt(NV)
        assert machine.guest.apic is not None and machine.guest.apic.rvi == 0x31

    def test_a_halted_processor_wakes_only_for_what_it_can_take(self) -> None:
        machine = running(off=("primary.hlt_exiting",))
        guest = machine.guest
        guest.write_cr8(9)
        guest.hlt()
        post(machine.memory, DESCRIPTOR, 0x41)
        guest.interrupt(NV)
        assert guest.boundary() == NOTHING
        assert guest.state["guest_activity"] == 1
        post(machine.memory, DESCRIPTOR, 0xA1)
        guest.interrupt(NV)
        assert guest.boundary() == Delivered(0xA1)
        assert guest.state["guest_activity"] == 0

    def test_a_descriptor_that_is_gone(self) -> None:
        machine = running(posted_interrupt_descriptor_address=0x200_0000)
        assert machine.guest.interrupt(NV) == NOTHING

    def test_in_root_operation_it_is_an_ordinary_interrupt(self) -> None:
        machine = running(off=("pin.posted_interrupts",))
        assert machine.guest.interrupt(NV) == VmExit(ExitReason.EXTERNAL_INTERRUPT)


SHARED = running()


class TestDescriptor:
    def memory(self, **values: int) -> PhysicalMemory:
        memory = PhysicalMemory()
        memory.add_region(0, 1 << 16)
        memory.write(DESCRIPTOR, Descriptor.of(nv=NV, ndst=3, **values).pack())
        return memory

    def test_one_notification_at_a_time(self) -> None:
        memory = self.memory()
        assert post(memory, DESCRIPTOR, 1) == Notification(NV, 3)
        assert post(memory, DESCRIPTOR, 2) is None
        assert take(memory, DESCRIPTOR) == 6
        assert post(memory, DESCRIPTOR, 2) == Notification(NV, 3)

    def test_suppressed_ones_are_posted_quietly_unless_urgent(self) -> None:
        memory = self.memory(sn=True)
        assert post(memory, DESCRIPTOR, 1) is None
        assert not read_descriptor(memory, DESCRIPTOR).on
        assert post(memory, DESCRIPTOR, 2, urgent=True) == Notification(NV, 3)

    def test_software_s_side(self) -> None:
        memory = self.memory()
        suppress(memory, DESCRIPTOR)
        assert read_descriptor(memory, DESCRIPTOR).sn
        assert wake_with(memory, DESCRIPTOR, WAKE_UP, 9) is None
        assert post(memory, DESCRIPTOR, 1) == Notification(WAKE_UP, 9)
        assert resume_on(memory, DESCRIPTOR, NV, 4) == Notification(NV, 4)
        take(memory, DESCRIPTOR)
        assert resume_on(memory, DESCRIPTOR, NV, 5) is None

    def test_an_update_that_collides_starts_again(self) -> None:
        memory = self.memory()

        class Contended:
            """Another agent posts vector 7 right before the first two updates."""

            left = 2

            def read_record(self, address: int, size: int) -> int:
                return memory.read_record(address, size)

            def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
                if self.left:
                    self.left -= 1
                    before = Descriptor(memory.read_record(address, size))
                    memory.write(address, before.replace(pir=before.pir ^ 1 << 7).pack())
                return memory.compare_exchange(address, size, expected, new)

        for change in (
            lambda: post(Contended(), DESCRIPTOR, 1),
            lambda: take(Contended(), DESCRIPTOR),
            lambda: suppress(Contended(), DESCRIPTOR),
            lambda: resume_on(Contended(), DESCRIPTOR, NV, 1),
        ):
            memory.write(DESCRIPTOR, Descriptor.of(nv=NV).pack())
            change()
            assert read_descriptor(memory, DESCRIPTOR).pir in (0, 2)


# Every interleaving. Two virtual processors on two logical ones; each agent has a list of steps
# that it takes in order, and at every point any agent may be next.

SLOTS = {"A": 0x1_0000, "B": 0x1_8000}
"""Where VMCS, virtual-APIC page and descriptor of each virtual processor are."""
CAPS = VMX_PROFILES["broadwell-posted"]


@dataclass(frozen=True)
class World:
    """A state between two steps; the bytes of memory are part of it."""

    memory: bytes
    running: tuple[str | None, str | None] = (None, None)
    """The virtual processor that each logical one runs."""
    vectors: tuple[tuple[str, int, bool], ...] = ()
    """Guest interrupt status of those that run, and whether an interrupt is pending."""
    in_flight: tuple[Notification, ...] = ()
    done: tuple[int, ...] = ()
    """How many steps each agent has taken."""
    delivered: tuple[tuple[str, int], ...] = ()
    halted: tuple[str, ...] = ()
    """Virtual processors that software lets sleep until something is posted for them."""


@dataclass
class Explorer:
    """Two processors that are put into any state and take one step from there."""

    agents: tuple[tuple[Callable[[Explorer, World], World | None], ...], ...]
    lossy_resume: bool = False
    seen: set[World] = field(default_factory=set)
    ends: set[World] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 1 << 18)
        self.cpus = []
        for number in range(2):
            region = 0x1000 * (1 + number)
            self.memory.write(region, REVISION.to_bytes(4, "little"))
            cpu = LogicalProcessor(CAPS, self.memory, apic_id=number)
            assert cpu.vmxon(region) == VmResult(0)
            self.cpus.append(cpu)
        for slot in SLOTS.values():
            state = state_of(
                CAPS,
                *POSTED,
                virtual_apic_address=slot + 0x1000,
                posted_interrupt_descriptor_address=slot + 0x2000,
                posted_interrupt_vector=NV,
                guest_rflags=0x202,
            )
            self.memory.write(slot, pack(state))
            self.memory.write(slot + 0x2000, Descriptor.of(nv=NV, sn=True).pack())

    def start(self) -> World:
        """Nothing runs, nothing is posted."""
        return World(self.memory.read(0x1_0000, 0x1_0000), done=(0,) * len(self.agents))

    def put(self, world: World) -> None:
        """Make memory and processors what a state says."""
        self.memory.write(0x1_0000, world.memory)
        for cpu, name in zip(self.cpus, world.running, strict=True):
            cpu.guest = None
            if name is not None:
                slot = SLOTS[name]
                cpu.vmptrld(slot)
                before = self.memory.read(slot, 0x2000)
                entered = cpu.vmresume() if Vmcs(self.memory, slot).launched else cpu.vmlaunch()
                assert entered == Entered()
                self.memory.write(slot, before)
                _, status, pending = next(each for each in world.vectors if each[0] == name)
                assert cpu.guest is not None and cpu.guest.apic is not None
                apic = cpu.guest.apic
                apic.rvi, apic.svi = status & 0xFF, status >> 8
                apic.pending = pending

    def take_down(self, world: World) -> World:
        """The state after a step."""
        vectors = []
        for cpu, name in zip(self.cpus, world.running, strict=True):
            if name is not None:
                assert cpu.guest is not None and cpu.guest.apic is not None
                apic = cpu.guest.apic
                vectors.append((name, apic.status, apic.pending))
        return replace(world, memory=self.memory.read(0x1_0000, 0x1_0000), vectors=tuple(vectors))

    def steps(self, world: World) -> Iterator[Callable[[Explorer, World], World | None]]:
        """What may come next."""
        for agent, (steps, done) in enumerate(zip(self.agents, world.done, strict=True)):
            if done < len(steps):
                yield partial(_of_agent, agent, steps[done])
        for number in range(len(world.in_flight)):
            yield partial(arrive, number)
        for cpu, name in enumerate(world.running):
            if name is not None:
                yield partial(guest_step, cpu, name)

    def explore(self) -> None:
        """Every state that can be reached."""
        waiting = [self.start()]
        while waiting:
            world = waiting.pop()
            if world in self.seen:
                continue
            self.seen.add(world)
            onward = []
            for step in self.steps(world):
                self.put(world)
                after = step(self, world)
                if after is not None:
                    after = self.take_down(after)
                    if after != world:
                        onward.append(after)
            if not onward:
                self.ends.add(world)
            waiting += onward


Step = Callable[[Explorer, World], World | None]


def _of_agent(agent: int, step: Step, explorer: Explorer, world: World) -> World | None:
    after = step(explorer, world)
    if after is None:
        return None
    done = list(after.done)
    done[agent] += 1
    return replace(after, done=tuple(done))


def _sent(world: World, notification: Notification | None) -> World:
    if notification is None:
        return world
    return replace(world, in_flight=tuple(sorted((*world.in_flight, notification))))


def device_posts(name: str, vector: int) -> Step:
    """The unit posts for a device."""

    def step(explorer: Explorer, world: World) -> World:
        return _sent(world, post(explorer.memory, SLOTS[name] + 0x2000, vector))

    return step


def switch_in(name: str, cpu: int) -> Step:
    """Software lets a virtual processor run, perhaps where it did not run before."""

    def step(explorer: Explorer, world: World) -> World | None:
        if world.running[cpu] is not None or name in (*world.running, *world.halted):
            return None
        slot, logical = SLOTS[name], explorer.cpus[cpu]
        if explorer.lossy_resume:  # clears SN and forgets to look at PIR
            before = read_descriptor(explorer.memory, slot + 0x2000)
            after = before.replace(nv=NV, ndst=cpu, sn=False)
            explorer.memory.write(slot + 0x2000, after.pack())
            notification = None
        else:
            notification = resume_on(explorer.memory, slot + 0x2000, NV, cpu)
        logical.vmptrld(slot)
        launched = Vmcs(explorer.memory, slot).launched
        assert (logical.vmresume() if launched else logical.vmlaunch()) == Entered()
        now = list(world.running)
        now[cpu] = name
        return _sent(replace(world, running=tuple(now)), notification)  # type: ignore[arg-type]

    return step


def switch_out(name: str, cpu: int) -> Step:
    """Software stops a virtual processor: an exit, then SN."""

    def step(explorer: Explorer, world: World) -> World | None:
        if world.running[cpu] != name:
            return None
        logical = explorer.cpus[cpu]
        assert logical.guest is not None
        assert isinstance(logical.guest.interrupt(0x20), VmExit)
        suppress(explorer.memory, SLOTS[name] + 0x2000)
        now = list(world.running)
        now[cpu] = None
        return replace(world, running=tuple(now))  # type: ignore[arg-type]

    return step


def halt(name: str, cpu: int, *, asleep: bool = False) -> Step:
    """It has nothing to do: an exit, then the wake-up vector in NV; ``asleep``: SN instead."""

    def step(explorer: Explorer, world: World) -> World | None:
        guest = explorer.cpus[cpu].guest
        if guest is not None and guest.apic is not None and guest.apic.status:
            return None  # it halts in its idle loop: everything requested was taken and ended
        stopped = switch_out(name, cpu)(explorer, world)
        if stopped is None:
            return None
        halted = replace(stopped, halted=(name,))
        if asleep:
            return halted
        address = SLOTS[name] + 0x2000
        return _sent(halted, wake_with(explorer.memory, address, WAKE_UP, cpu))

    return step


def arrive(number: int, explorer: Explorer, world: World) -> World:
    """A notification reaches its processor: whoever runs there with that vector looks.

    The wake-up vector is software's: it wakes those for whom something is posted.
    """
    notification = world.in_flight[number]
    left = world.in_flight[:number] + world.in_flight[number + 1 :]
    if notification.vector == WAKE_UP:
        asleep = tuple(
            name
            for name in world.halted
            if not read_descriptor(explorer.memory, SLOTS[name] + 0x2000).pir
        )
        return replace(world, in_flight=left, halted=asleep)
    guest = explorer.cpus[notification.destination].guest
    if guest is not None:
        assert guest.interrupt(notification.vector) == NOTHING
    return replace(world, in_flight=left)


def guest_step(cpu: int, name: str, explorer: Explorer, world: World) -> World:
    """A guest takes an interrupt, or ends the one that it serves."""
    guest = explorer.cpus[cpu].guest
    assert guest is not None and guest.apic is not None
    taken = guest.boundary()
    if isinstance(taken, Delivered):
        delivered = (*world.delivered, (name, taken.vector))
        return replace(world, delivered=tuple(sorted(delivered)))
    if guest.apic.svi:
        assert guest.apic.virtualize_eoi() is None
    return world


LOW, HIGH = 0x41, 0x93


def wanted(*deliveries: tuple[str, int]) -> set[tuple[tuple[str, int], ...]]:
    return {tuple(sorted(deliveries))}


def test_posting_delivery_and_eoi_lose_and_double_nothing() -> None:
    """One virtual processor runs; a device posts two vectors whenever it likes."""
    explorer = Explorer(((device_posts("A", LOW), device_posts("A", HIGH)), (switch_in("A", 0),)))
    explorer.explore()
    assert {end.delivered for end in explorer.ends} == wanted(("A", LOW), ("A", HIGH))
    assert len(explorer.seen) > 20
    assert all(end.in_flight == () for end in explorer.ends)


def test_nothing_is_lost_when_a_virtual_processor_moves() -> None:
    """It stops, and runs again on another processor, while the device posts."""
    explorer = Explorer(
        (
            (device_posts("A", LOW), device_posts("A", HIGH)),
            (switch_in("A", 0), switch_out("A", 0), switch_in("A", 1)),
        )
    )
    explorer.explore()
    assert {end.delivered for end in explorer.ends} == wanted(("A", LOW), ("A", HIGH))
    assert len(explorer.seen) > 100


def test_two_virtual_processors_share_a_processor_and_a_vector() -> None:
    """A notification for one that arrives while the other runs does no harm to either."""
    explorer = Explorer(
        (
            (device_posts("A", LOW), device_posts("B", LOW)),
            (device_posts("A", HIGH), device_posts("B", HIGH)),
            (switch_in("A", 0), switch_out("A", 0), switch_in("B", 0)),
            (switch_in("A", 1),),
        )
    )
    explorer.explore()
    complete = {end for end in explorer.ends if end.running == ("B", "A")}
    everything = [(name, vector) for name in "AB" for vector in (LOW, HIGH)]
    assert {end.delivered for end in complete} == wanted(*everything)
    assert len(explorer.seen) > 4000


def halting(*, asleep: bool) -> Explorer:
    """A virtual processor runs, halts, and runs again when it is woken."""
    explorer = Explorer(
        (
            (device_posts("A", LOW), device_posts("A", HIGH)),
            (switch_in("A", 0), halt("A", 0, asleep=asleep), switch_in("A", 1)),
        )
    )
    explorer.explore()
    return explorer


def test_a_halted_virtual_processor_is_woken_whenever_something_was_posted() -> None:
    """Even before NV was the wake-up vector: software looks at PIR when it changes NV."""
    ends = halting(asleep=False).ends
    assert {end.delivered for end in ends} == wanted(("A", LOW), ("A", HIGH))


def test_one_that_suppresses_notifications_instead_sleeps_on() -> None:
    ends = halting(asleep=True).ends
    assert () in {end.delivered for end in ends}
    assert all(end.halted for end in ends if end.delivered == ())


def test_software_that_forgets_to_look_at_pir_loses_an_interrupt() -> None:
    """The exploration can find the bug that it is there for."""
    explorer = Explorer(
        (
            (device_posts("A", LOW),),
            (switch_in("A", 0), switch_out("A", 0), switch_in("A", 1)),
        ),
        lossy_resume=True,
    )
    explorer.explore()
    assert () in {end.delivered for end in explorer.ends}
