"""What the bench times of the processor's side is what its cases say."""

from __future__ import annotations

import pytest

from scripts import bench_guest
from vtd.guest.x86.outcomes import NOTHING


def test_every_case_runs_and_leaves_the_guest_running() -> None:
    names = []
    for name, run, operations in bench_guest.runners():
        run()
        names.append(name)
        assert operations > 0
    assert len(names) == 4


def test_interrupts_are_posted_delivered_and_ended() -> None:
    machine = bench_guest.Hypervisor()
    bench_guest.interrupts(machine, 3)()
    assert machine.cpu.local_apic.eois == 3
    assert machine.guest.apic is not None
    assert machine.guest.apic.status == 0
    assert machine.guest.boundary() == NOTHING


def test_loads_are_cached() -> None:
    machine = bench_guest.Hypervisor()
    bench_guest.loads(machine, 2)()
    assert list(machine.cpu.mappings.physical[machine.eptp >> 12]) == [0x123]


def test_rates_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    bench_guest.main(["--part", "10000"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "VM entries",
        "EPT walks",
        "posted interrupts",
    ]
    assert all(line.endswith("per second") for line in lines)
