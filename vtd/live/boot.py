"""One boot: a machine is served, QEMU runs a kernel on it, and what the guest says is collected.

The guest has two serial ports: the first is the kernel's console, the second has the verdicts of
the checks (``guest/init``). Everything is in one private folder, which is gone afterwards.
"""

from __future__ import annotations

import base64
import gzip
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vtd.layouts.registers import Capability, ExtendedCapability
from vtd.live import initramfs, madt, xen
from vtd.live.blame import LiveAudit
from vtd.live.defects import plant
from vtd.live.interpreter import collector
from vtd.live.kernel import Kernel
from vtd.live.machine import LiveMachine
from vtd.live.qemu import Qemu, QemuError
from vtd.live.qemu_arguments import qemu_arguments
from vtd.live.server import Server
from vtd.live.xen import Xen
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.recordings.live_recorder import LiveRecorder
from vtd.unit.caching.policy import POLICIES
from vtd.unit.departures import departures_named
from vtd.unit.options import Options
from vtd.unit.reporting.events import Event, InterruptBlocked, RequestBlocked
from vtd.unit.unit import RemappingUnit

_VERDICT = re.compile(r"^check: (.*?) (ok|FAILED|skipped)(?:: ?(.*))?$")
END = "note: end"
CUT = "note: the power fails"
FILE = "file: "
"""Before the name and the content, in base64, of a file."""
STEP = 0.2
"""Seconds after which it is looked whether QEMU still runs."""
CONSOLE = "ttyS0"
ALWAYS = "intel_iommu=on panic=-1 no_timer_check nosoftlockup"
"""Words for every kernel; on a busy host, whose guests have no steady clock, the check of the timer
would take it for broken, and the watchdog a process for stuck."""
CRASH_MEMORY = "crashkernel=320M"


class Verdict(NamedTuple):
    """How one check of the guest ended."""

    name: str
    state: str
    """``ok``, ``FAILED`` or ``skipped``."""
    why: str = ""


class Blocked(NamedTuple):
    """A request or interrupt that a unit blocked and recorded."""

    source_id: int
    target: int
    """The page of the address; 0 for an interrupt."""
    reason: int
    interrupt: bool


@dataclass(frozen=True)
class Guest:
    """What is needed to boot anything."""

    qemu: Qemu
    kernel: Kernel
    busybox: bytes
    program: bytes | None = None
    """The compiled checks; None where nothing could compile them."""
    tools: Mapping[str, bytes] = field(default_factory=dict)
    """Programs that some checks run, with what they load, by path."""
    xen: Xen | None = None
    """What starts first, and has the units."""

    @property
    def release(self) -> str:
        """Which kernel it is, and under which Xen."""
        name = self.kernel.release
        return name if self.xen is None else f"{self.xen.name}, {name}"


@dataclass(frozen=True)
class Boot:
    """One boot: machine, kernel command line, checks, and how the units are."""

    machine: str
    """A description, TOML."""
    checks: tuple[str, ...]
    append: str = ""
    cpus: int = 1
    cpu: str = "qemu64"
    caches: str = "default"
    departures: tuple[str, ...] = ()
    """Where the units depart from the specification, by name."""
    audited: bool = True
    defects: tuple[str, ...] = ()
    eventfds: bool = False
    """QEMU keeps MSI and MSI-X, and is told by eventfds."""
    lies: Mapping[str, int] = field(default_factory=dict)
    """Fields of CAP and ECAP that read otherwise than the unit is."""
    interrupts_remapped: bool = False
    """No I/O APIC that would keep Linux from remapping interrupts."""
    next_checks: tuple[str, ...] = ()
    """Of the kernel that the checks ``kexec`` and ``kdump`` start, or that starts after a power
    cut."""
    power_cut: bool = False
    """The guest says when the power fails: it is gone then, its disks keep what they promise to,
    and it starts again with ``next_checks``."""
    script: bytes | None = None
    record: Path | None = None
    xen_append: str = ""
    """Words for Xen, where that starts first."""
    silence: float = 180
    """Seconds without a word of the guest after which it is ended; a busy host makes guests slow,
    not silent."""
    seconds: float = 1800
    """After which it is ended however much it says."""


@dataclass
class Outcome:
    """What one boot came to."""

    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    console: str = ""
    blocked: list[Blocked] = field(default_factory=list)
    audited: list[str] = field(default_factory=list)
    """What the audit holds against the guest, and invalidated entries that a unit used."""
    uses: int = 0
    """Uses of cached entries that the audit checked."""
    window: int = 0
    """Uses between a change and its invalidation, which are legal (6.5.3.6)."""
    counts: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """What the guest gave out, by name."""
    ended: bool = False
    """Whether the guest came to its end by itself."""
    why: str = ""
    """Why it was ended, or what QEMU complained of."""
    devices: dict[int, str] = field(default_factory=dict)
    """Models by source-id."""


def run(
    guest: Guest,
    boot: Boot,
    now: Callable[[], int],
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[LiveMachine], None] = lambda _: None,
) -> Outcome:
    """Boot a guest and wait for its end; ``note`` hears of each line of the checks.

    ``watch`` is given the machine before anybody connects.

    ``now`` is the time in nanoseconds. MachineError, LiveError, KernelError or OSError if it can't
    even begin, QemuError if QEMU fails or is killed. An exception from outside, such as
    KeyboardInterrupt, leaves nothing behind.
    """
    outcome = Outcome()
    with ExitStack() as stack:
        options = Options(
            caches=POLICIES[boot.caches], departures=departures_named(boot.departures)
        )
        assembly = assemble(read_machine(boot.machine), options)
        machine = LiveMachine(assembly.platform, assembly.clock, eventfds=boot.eventfds, note=note)
        units = [assembly.platform.units[each.register_base] for each in assembly.table.units]
        plant(boot.defects, units)
        keep_lying(machine, units, boot.lies)
        if boot.record is not None:
            lines = stack.enter_context(gzip.open(boot.record, "wt", encoding="utf-8"))
            about = {"devices": machine.described(), "bridges": machine.bridges()}
            LiveRecorder(lines.write, assembly.table, units, kernel=guest.release, **about)
        audit = LiveAudit(units if boot.audited else [], lambda: None)
        for unit in units:
            unit.subscribe(lambda event: _note_blocked(outcome, event))
        outcome.devices = {
            assembly.platform.topology.requester_id(function): type(function).__name__.lower()
            for function in assembly.platform.topology.functions()
        }
        watch(machine)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vtd-live-")))
        server = Server(machine, folder, now)
        stack.callback(server.close)
        (folder / "dmar.bin").write_bytes(assembly.table.pack())
        _powered(guest, boot, server, outcome, note)
        if boot.power_cut and not outcome.why:
            while server.clients:
                server.serve(STEP)
            machine.lose_power()
            again = replace(boot, checks=boot.next_checks, next_checks=(), power_cut=False)
            _powered(guest, again, server, outcome, note)
        outcome.counts = machine.counts()
    outcome.audited, outcome.uses, outcome.window = audit.blame()
    return outcome


def _powered(
    guest: Guest, boot: Boot, server: Server, outcome: Outcome, note: Callable[[str], None]
) -> None:
    """The time from a start of QEMU to its end, or until the power fails."""
    folder, now = server.folder, server.now
    console = folder / "console"
    command = [
        *guest.qemu.command,
        *qemu_arguments(server.machine, folder / "dmar.bin", server.path),
        *("-nodefaults", "-no-reboot", "-display", "none", "-smp", str(boot.cpus)),
        *("-cpu", boot.cpu, "-serial", f"file:{console}", "-serial", "stdio"),
        *_software(guest, boot, folder),
    ]
    with _started(command) as process:
        said = _Said(process, note)
        patience = Patience(boot, now())
        while process.poll() is None and not outcome.why:
            server.serve(STEP)
            if boot.power_cut and CUT in said.lines:
                break
            size = console.stat().st_size if console.exists() else 0
            outcome.why = patience.lost(now(), size + len(said.lines))
        code = process.poll()
    said.finish()
    if console.exists():
        outcome.console += console.read_text("utf-8", "replace")
    complaints = " ".join(said.complaints)
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed ({code})"
        raise QemuError(
            f"{guest.qemu.command[-1]} {how}" + (f": {complaints}" if complaints else "")
        )
    outcome.why = outcome.why or complaints
    _read_lines(outcome, said.lines)


class Patience:
    """Watches whether a guest still says anything, and for how long it has run."""

    def __init__(self, boot: Boot, start: int) -> None:
        self._boot = boot
        self._start = self._last = start
        self._said = 0

    def lost(self, now: int, said: int) -> str:
        """Why to wait no longer for a guest that has said so much, or nothing."""
        if said != self._said:
            self._said, self._last = said, now
        if now - self._last > self._boot.silence * 1e9:
            return f"it said nothing for {self._boot.silence:.0f} s"
        if now - self._start > self._boot.seconds * 1e9:
            return f"it was not finished after {self._boot.seconds:.0f} s"
        return ""


def _software(guest: Guest, boot: Boot, folder: Path) -> list[str]:
    """The kernel that QEMU starts, or Xen and the kernel under it."""
    initrd = folder / "initrd"
    initrd.write_bytes(_initrd(guest, boot))
    image = guest.kernel.image
    if guest.xen is None:
        line = _command_line(boot, CONSOLE)
        return ["-kernel", str(image), "-initrd", str(initrd), "-append", line]
    place, kernel = folder / "xen", folder / "kernel"
    place.write_bytes(guest.xen.image)
    if not kernel.exists():
        kernel.symlink_to(image.resolve())  # whose path may have spaces, which end one here
    line = _command_line(boot, xen.CONSOLE)
    return xen.qemu_arguments(place, boot.xen_append, kernel, line, initrd)


def _command_line(boot: Boot, console: str) -> str:
    crash = (CRASH_MEMORY,) if "kdump" in boot.checks else ()
    return " ".join(word for word in (f"console={console}", ALWAYS, *crash, boot.append) if word)


def _initrd(guest: Guest, boot: Boot) -> bytes:
    tables = {"madt.aml": madt.without_io_apic(boot.cpus)} if boot.interrupts_remapped else {}
    extra = {}
    if boot.next_checks and not boot.power_cut:
        extra = {
            "next/kernel": guest.kernel.image.read_bytes(),
            "next/initrd": initramfs.build(
                guest.kernel, guest.busybox, boot.next_checks, acpi_tables=tables
            ),
            "next/line": f"console={CONSOLE} {ALWAYS} {boot.append}".encode(),
        }
    programs = {"bin/checks": guest.program, "script": boot.script}
    given = {path: content for path, content in programs.items() if content is not None}
    names = {line.partition(" ")[0] for line in boot.checks}
    if "collect" in names:
        given |= collector()
    if names & initramfs.WITH_TOOLS:
        given |= guest.tools
    return initramfs.build(
        guest.kernel,
        guest.busybox,
        boot.checks,
        programs=given,
        extra=extra,
        acpi_tables=tables,
    )


def keep_lying(machine: LiveMachine, units: list[RemappingUnit], fields: Mapping[str, int]) -> None:
    """Have units lie from now on; the reset by which QEMU begins would make them honest."""
    for unit in units:
        lie(unit, fields)
        machine.chipset.at_reset.append(partial(lie, unit, fields))


def lie(unit: RemappingUnit, fields: Mapping[str, int]) -> None:
    """Have the capability registers of a unit say what is not true of it."""
    for register in (Capability, ExtendedCapability):
        said = {name: value for name, value in fields.items() if name in register.FIELDS}
        unit.registers[register] = unit.registers[register].replace(**said)


def _note_blocked(outcome: Outcome, event: Event) -> None:
    match event:
        case RequestBlocked(request, reason, True):
            page = request.address & ~0xFFF
            outcome.blocked.append(Blocked(request.source_id, page, reason, False))
        case InterruptBlocked(recorded=True):
            outcome.blocked.append(Blocked(event.source_id, 0, event.reason, True))


class _Said:
    """The second serial port, line by line, read while the server works."""

    def __init__(self, process: subprocess.Popen[bytes], note: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self.complaints: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        self._threads = [
            threading.Thread(target=self._read, args=(process.stdout, self.lines, note)),
            threading.Thread(target=self._read, args=(process.stderr, self.complaints, note)),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Iterator[bytes], lines: list[str], note: Callable[[str], None]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").strip()
            if line:
                lines.append(line)
            if line and not line.startswith(FILE):
                note(line)

    def finish(self) -> None:
        """Wait until everything has been read."""
        for thread in self._threads:
            thread.join()


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone afterwards."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which ends the other
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _read_lines(outcome: Outcome, lines: list[str]) -> None:
    for line in lines:
        found = _VERDICT.match(line)
        if found:
            outcome.verdicts.append(Verdict(found[1], found[2], found[3] or ""))
        elif line == END:
            outcome.ended = True
        elif line.startswith(FILE):
            name, _, content = line.removeprefix(FILE).partition(" ")
            try:
                outcome.files[name] = base64.b64decode(content, validate=True)
            except ValueError as error:
                outcome.notes.append(f"{name}: {error}")
        else:
            outcome.notes.append(line.removeprefix("note: "))
