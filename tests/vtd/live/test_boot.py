"""One boot, with a program in the place of QEMU: what it is given, what comes of its words."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.models.nvme.function import Nvme
from pagetables.memory import PhysicalMemory
from tests.vtd.live.fake_qemu import FakeQemu
from tests.vtd.live.kernel_files import BUSYBOX, RELEASE, kernel_folder
from tests.vtd.live.newc import read_newc
from vtd.layouts.registers import Capability, ExtendedCapability
from vtd.live.boot import Boot, Guest, Patience, Verdict, keep_lying, lie, run
from vtd.live.cells import DEVICES
from vtd.live.judgement import findings
from vtd.live.kernel import find_kernel
from vtd.live.machine import LiveMachine
from vtd.live.machine_parts import unit
from vtd.live.qemu import QemuError, find_qemu
from vtd.live.xen import ALWAYS, Xen
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.machine.reading import MachineError
from vtd.recordings.replay_live import replay_live
from vtd.software.registers import read
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

MACHINE = unit() + DEVICES


class Clock:
    """A clock that goes a tenth of a second at each look."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 100_000_000
        return self.now


@pytest.fixture
def qemu(tmp_path: Path) -> FakeQemu:
    return FakeQemu(tmp_path)


@pytest.fixture
def guest(qemu: FakeQemu, tmp_path: Path) -> Guest:
    kernel = find_kernel(kernel_folder(tmp_path / "kernel"))
    return Guest(find_qemu(str(qemu.path)), kernel, BUSYBOX, b"program")


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the test's own, with a name short enough for sockets (108 bytes in all)."""
    with tempfile.TemporaryDirectory(prefix="vtd") as short:
        (tmp_path / "private").symlink_to(short)
        monkeypatch.setattr("tempfile.tempdir", short)
        yield


def left_behind(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "private").iterdir())


def test_a_disk_keeps_what_it_promised_when_the_power_fails(qemu: FakeQemu, guest: Guest) -> None:
    qemu.says(said="check: units ok\nnote: the power fails\n", again="check: nvme ok\nnote: end\n")
    qemu.wait_forever()
    boot = Boot(MACHINE, ("units",), next_checks=("after_cut", "nvme"), power_cut=True)
    machines: list[LiveMachine] = []

    def watch(machine: LiveMachine) -> None:
        machines.append(machine)
        for each in machine.endpoints:
            if isinstance(each.served.function, Nvme):
                (namespace,) = each.served.function.subsystem.namespaces.values()
                namespace.write(0, b"kept".ljust(512), durable=True)
                for block in range(1, 65):
                    namespace.write(block * 512, b"lost".ljust(512), durable=False)
                each.served.function.config.write(4, 2, 4)

    outcome = run(guest, boot, Clock(), watch=watch)
    assert [each.name for each in outcome.verdicts] == ["units", "nvme"]
    assert outcome.ended
    files = read_newc((qemu.folder / "initrd").read_bytes())
    assert files["checks"].content == b"after_cut\nnvme\n"
    assert "next/kernel" not in files
    (disk,) = (
        each.served.function
        for each in machines[0].endpoints
        if isinstance(each.served.function, Nvme)
    )
    (namespace,) = disk.subsystem.namespaces.values()
    assert namespace.read(0, 512) == b"kept".ljust(512)
    blocks = {namespace.read(block * 512, block * 512 + 512) for block in range(1, 65)}
    assert blocks == {b"lost".ljust(512), bytes(512)}
    assert not disk.command.value.bme


@pytest.mark.parametrize("check", ["ethtool igb", "nvme_virtual", "units"])
def test_programs_go_along_with_the_checks_that_run_them(
    qemu: FakeQemu, guest: Guest, check: str
) -> None:
    run(replace(guest, tools={"bin/nvme": b"manages"}), Boot(MACHINE, (check,)), Clock())
    files = read_newc((qemu.folder / "initrd").read_bytes())
    assert ("bin/nvme" in files) is (check != "units")


def test_verdicts_and_notes_are_told_apart(qemu: FakeQemu, guest: Guest, tmp_path: Path) -> None:
    said = (
        "note: kernel 6\ncheck: nvme nvme0n1 512 ok\ncheck: vfio mapped FAILED: it: differs\n"
        "check: remapping FAILED:\n"
        "check: cpus skipped: one\nwhatever\nnote: end\n"
    )
    qemu.says(said=said, console="[    1.0] DMAR: IOMMU enabled\n")
    heard: list[str] = []
    outcome = run(guest, Boot(MACHINE, ("units",)), Clock(), heard.append)
    assert outcome.verdicts == [
        Verdict("nvme nvme0n1 512", "ok"),
        Verdict("vfio mapped", "FAILED", "it: differs"),
        Verdict("remapping", "FAILED"),
        Verdict("cpus", "skipped", "one"),
    ]
    assert outcome.notes == ["kernel 6", "whatever"]
    assert outcome.ended
    assert outcome.console == "[    1.0] DMAR: IOMMU enabled\n"
    assert heard == said.split("\n")[:-1]
    assert left_behind(tmp_path) == []


def test_files_of_the_guest_are_kept_and_not_told(qemu: FakeQemu, guest: Guest) -> None:
    qemu.says(said="file: one.gz YWJj\nfile: two.gz Y!\ncheck: units ok\nnote: end\n")
    heard: list[str] = []
    outcome = run(guest, Boot(MACHINE, ("units",)), Clock(), heard.append)
    assert outcome.files == {"one.gz": b"abc"}
    assert [note.partition(":")[0] for note in outcome.notes] == ["two.gz"]
    assert heard == ["check: units ok", "note: end"]


def test_whoever_watches_is_given_the_machine_first(qemu: FakeQemu, guest: Guest) -> None:
    seen: list[LiveMachine] = []
    run(guest, Boot(MACHINE, ("units",)), Clock(), watch=seen.append)
    assert [len(each.endpoints) for each in seen] == [4]


def test_qemu_is_told_of_everything(qemu: FakeQemu, guest: Guest) -> None:
    run(guest, Boot(MACHINE, ("units",), append="iommu=pt", cpus=2), Clock())
    arguments = qemu.arguments
    assert arguments[arguments.index("-smp") + 1] == "2"
    line = arguments[arguments.index("-append") + 1]
    assert line == "console=ttyS0 intel_iommu=on panic=-1 no_timer_check nosoftlockup iommu=pt"
    assert sum("vfio-user-pci" in each for each in arguments) == 4  # three functions, the units
    assert arguments[arguments.index("-kernel") + 1].endswith(f"vmlinuz-{RELEASE}")


def test_xen_starts_first_and_the_kernel_under_it(qemu: FakeQemu, guest: Guest) -> None:
    under = replace(guest, xen=Xen("xen-4.20", b"image"))
    run(under, Boot(MACHINE, ("nvme",), append="a=1,2", xen_append="iommu=no-qinval"), Clock())
    arguments = qemu.arguments
    assert arguments[arguments.index("-kernel") + 1].endswith("/xen")
    assert arguments[arguments.index("-append") + 1] == f"{ALWAYS} iommu=no-qinval"
    module = arguments[arguments.index("-initrd") + 1].partition(" ")
    assert module[0].endswith("/kernel")
    assert module[2].startswith("console=hvc0 intel_iommu=on ")
    assert " a=1,,2," in module[2]
    assert read_newc((qemu.folder / "initrd").read_bytes())["checks"].content == b"nvme\n"
    assert under.release == f"xen-4.20, {RELEASE}"


def test_a_kernel_that_starts_another_one_has_it(qemu: FakeQemu, guest: Guest) -> None:
    boot = Boot(MACHINE, ("kdump",), next_checks=("crash_kernel",), interrupts_remapped=True)
    run(guest, boot, Clock())
    entries = read_newc((qemu.folder / "initrd").read_bytes())
    assert read_newc(entries["next/initrd"].content)["checks"].content == b"crash_kernel\n"
    assert entries["kernel/firmware/acpi/madt.aml"].content[:4] == b"APIC"
    line = qemu.arguments[qemu.arguments.index("-append") + 1]
    assert "crashkernel=" in line


@pytest.mark.parametrize(
    ("how", "limits", "why"),
    [
        ("forever", {"silence": 20}, "it said nothing for 20 s"),
        ("forever", {"seconds": 20}, "it was not finished after 20 s"),
        ("chatting", {"seconds": 100, "silence": 20}, "it was not finished after 100 s"),
    ],
)
def test_a_guest_that_never_ends_is_ended(
    qemu: FakeQemu, guest: Guest, tmp_path: Path, how: str, limits: dict[str, Any], why: str
) -> None:
    qemu.says(said="check: units ok\n")
    qemu.behave(how)
    outcome = run(guest, replace(Boot(MACHINE, ("units",)), **limits), Clock())
    assert not outcome.ended
    assert outcome.why == why
    assert list(findings(outcome)) == [f"the guest did not come to its end: {why}"]
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "message"),
    [("killed", "was killed by SIGKILL"), ("broken", "failed (1): no such device")],
)
def test_a_qemu_that_fails_or_is_killed_is_an_error(
    qemu: FakeQemu, guest: Guest, tmp_path: Path, how: str, message: str
) -> None:
    qemu.behave(how)
    with pytest.raises(QemuError) as raised:
        run(guest, Boot(MACHINE, ("units",)), Clock())
    assert str(raised.value) == f"{qemu.path} {message}"
    assert left_behind(tmp_path) == []


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans())), st.integers(1, 60), st.integers(1, 60)
)
def test_patience_ends_after_silence_or_time(
    steps: list[tuple[int, bool]], silence: int, seconds: int
) -> None:
    patience = Patience(Boot("", (), silence=silence, seconds=seconds), 0)
    now = said = last = 0
    for step, speaks in steps:
        now += step
        if speaks:
            said, last = said + 1, now
        assert bool(patience.lost(now * 10**9, said)) == (now - last > silence or now > seconds)


def test_an_interruption_leaves_nothing_behind(
    qemu: FakeQemu, guest: Guest, tmp_path: Path
) -> None:
    qemu.wait_forever()
    clock = Clock()

    def interrupted() -> int:
        if clock.now > 3_000_000_000:
            raise KeyboardInterrupt
        return clock()

    with pytest.raises(KeyboardInterrupt):
        run(guest, Boot(MACHINE, ("units",)), interrupted)
    assert left_behind(tmp_path) == []
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(qemu.path).encode() in each for each in running)


def test_a_recording_of_a_boot_replays(guest: Guest, tmp_path: Path) -> None:
    record = tmp_path / "boot.jsonl.gz"
    run(guest, Boot(MACHINE, ("units",), record=record, caches="aggressive"), Clock())
    assert replay_live(record).mismatches == []


def test_a_unit_that_lies_says_so_only_in_its_registers() -> None:
    made = PROFILES["qemu"]
    told = RemappingUnit(made, PhysicalMemory())
    lie(told, {"sslps": 0, "eim": 1})
    assert read(told, Capability) == made.cap.replace(sslps=0)
    assert read(told, ExtendedCapability) == made.ecap.replace(eim=1)
    assert told.capabilities == made


def test_a_machine_that_can_not_be_is_an_error(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(MachineError):
        run(guest, Boot(unit("nothing"), ()), Clock())
    assert left_behind(tmp_path) == []


def test_a_lie_outlives_the_reset_by_which_qemu_begins() -> None:
    assembly = assemble(read_machine(MACHINE))
    machine = LiveMachine(assembly.platform, assembly.clock)
    (unit_of_machine,) = assembly.platform.units.values()
    keep_lying(machine, [unit_of_machine], {"sslps": 0})
    machine.chipset.reset()
    assert read(unit_of_machine, Capability).sslps == 0
    assert unit_of_machine.capabilities.cap.sslps != 0
