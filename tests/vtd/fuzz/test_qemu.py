"""The QEMU target and its qtest client, on a machine that answers as QEMU does."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtd.fuzz import strategies
from vtd.fuzz.asking import target_cases
from vtd.fuzz.case import Case, msi
from vtd.fuzz.driver import ModelDriver
from vtd.fuzz.qemu import QemuTarget
from vtd.fuzz.qtest import Qtest, QtestError, qemu_version
from vtd.fuzz.targets import TargetError, compare, engine_as_qemu
from vtd.unit.departures import QEMU
from vtd.unit.registers.capabilities import PROFILES

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = str(Path(__file__).with_name("fake_qemu.py"))
PREFIX = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, STAND_IN])


def test_the_version_is_what_the_program_says() -> None:
    assert qemu_version(PREFIX) == "QEMU emulator version 0.0 (a stand-in)"
    with pytest.raises(QtestError, match="no-such-program"):
        qemu_version("no-such-program")


def test_a_refused_command_is_an_error() -> None:
    machine = Qtest([], PREFIX)
    try:
        with pytest.raises(QtestError, match="refuse: FAIL as asked"):
            machine.command("refuse")
    finally:
        machine.close()


def test_a_program_that_ends_is_an_error() -> None:
    machine = Qtest([], "sh -c 'echo gone >&2'")
    try:
        with pytest.raises(QtestError, match="QEMU has ended: gone"):
            machine.command("clock_step", 1)
    finally:
        machine.close()
    with pytest.raises(QtestError, match="no-such-program"):
        Qtest([], "no-such-program")


def test_what_is_no_target_is_refused() -> None:
    with pytest.raises(TargetError, match="qemu profile 'xeon'"):
        QemuTarget("@xeon")
    with pytest.raises(TargetError, match="no-such-program"):
        QemuTarget("no-such-program@qemu")


@pytest.fixture(scope="module", params=["qemu", "qemu-scalable-first"])
def target(request: pytest.FixtureRequest) -> Iterator[QemuTarget]:
    machine = QemuTarget(f"{PREFIX}@{request.param}")
    yield machine
    machine.close()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_machine_like_ours_answers_as_our_engine(target: QemuTarget, data: st.DataObject) -> None:
    (profile,) = target.profiles
    cases = strategies.table_cases(
        strategies.Flavour.VALID,
        st.just(PROFILES[profile]),
        profile != "qemu",
        with_pasids=False,
        departures=QEMU,
    )
    case = data.draw(cases)
    assert not compare(case, engine_as_qemu().run(case), target.run(case))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_interrupts_of_a_machine_like_ours_are_those_of_our_engine(
    target: QemuTarget, data: st.DataObject
) -> None:
    case = data.draw(target_cases("interrupts", target))
    assert not compare(case, engine_as_qemu().run(case), target.run(case))


def test_an_interrupt_that_arrives_is_seen_and_one_that_does_not(target: QemuTarget) -> None:
    (profile,) = target.profiles
    driver = ModelDriver(PROFILES[profile])
    driver.interrupt_entry(0, 0x41, "d1")
    for index in (0, 1):
        driver.interrupt("d1", index)
    case = driver.case()
    outcomes = target.run(case)
    sent = [
        outcome for step, outcome in zip(case.steps, outcomes, strict=True) if step["op"] == "msi"
    ]
    assert sent[0]["delivered"]["vector"] == 0x41
    assert sent[1] == {"blocked": True}


def test_data_that_no_edu_device_can_send_is_refused(target: QemuTarget) -> None:
    (profile,) = target.profiles
    with pytest.raises(TargetError, match="data of more than 16 bits"):
        target.run(Case(PROFILES[profile], (msi("d0", 0xFEE0_0018, 1 << 16),)))


def test_a_case_for_another_unit_is_refused(target: QemuTarget) -> None:
    with pytest.raises(TargetError, match="a case for another unit"):
        target.run(Case(PROFILES["xeon"], ()))
