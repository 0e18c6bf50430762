"""vtd caps: fields, differences, contradictions."""

import json

import pytest
from typer.testing import CliRunner

from vtd.cli import main
from vtd.unit.registers.capabilities import PROFILES

QEMU, XEON = PROFILES["qemu"], PROFILES["xeon"]


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["caps", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_decoded_without_contradiction(name: str) -> None:
    profile = PROFILES[name]
    values = [hex(profile.cap), hex(profile.ecap), "--version", hex(profile.version)]
    (unit,) = json.loads(run(*values, "--format", "json"))["units"]
    assert unit["fields"]["CAP.MGAW"] == profile.cap.mgaw
    assert unit["fields"]["ECAP.IRO"] == profile.ecap.iro
    assert unit["contradictions"] == []


def test_the_fields_of_one_unit_are_listed() -> None:
    shown = run(hex(QEMU.cap), hex(QEMU.ecap))
    assert "CAP.SAGAW      6 (AGAW_39|AGAW_48)" in shown
    assert "second stage: 39, 48 bits, pages of 4 KiB, 2 MiB, 1 GiB" in shown
    assert "first stage" not in shown


@pytest.mark.parametrize(
    "form", ["{:x}", "{:X}h", "0x{:x}", "0x{:X}UL", "0x{:x}ull", "0x{:_x}", "{:_X}h"]
)
def test_registers_are_read_in_every_notation(form: str) -> None:
    (unit,) = json.loads(run(*map(form.format, (XEON.cap, XEON.ecap)), "--format", "json"))["units"]
    assert (int(unit["cap"], 16), int(unit["ecap"], 16)) == (XEON.cap, XEON.ecap)


def test_several_units_show_what_differs() -> None:
    values = [hex(QEMU.cap), hex(QEMU.ecap), hex(XEON.cap), hex(XEON.ecap)]
    shown = run(*values)
    assert "modes: legacy, scalable" in shown
    assert "first stage: 48 and 57 bits" in shown
    assert "ECAP.SMTS      0 | 1" in shown
    assert "ECAP.SMTS" in json.loads(run(*values, "--format", "json"))["differ"]
    assert "differ in: nothing" in run(*values[:2], *values[:2])


def test_contradictions_are_listed_and_exit_1() -> None:
    shown = run(hex(QEMU.cap), hex(QEMU.ecap & ~2), code=1)
    assert "contradiction: 11.4.3: IR is set without QI" in shown
    shown = run(hex(QEMU.cap), hex(QEMU.ecap), "0", "0", code=1)
    assert "contradiction: unit 2: " in shown
    shown = run(hex(QEMU.cap), hex(QEMU.ecap), "--host-address-width", "52", code=1)
    assert "less than the host address width" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["1"],
        ["1", "2", "3"],
        ["x", "2"],
        ["0x1" + "0" * 16, "0"],
        ["1", "2", "--version", "0x1ffffffff"],
        ["1", "2", "--host-address-width", "5"],
        [],
    ],
)
def test_wrong_use_exits_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["caps", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""


def test_the_version_is_a_register_or_major_and_minor() -> None:
    old = run("c90780106f0462", "f020fe", "--version", "1:0", "--format", "json")
    assert old == run("c90780106f0462", "f020fe", "--version", "10", "--format", "json")
    late = json.loads(run("1", "0", "--version", "6:0", "--format", "json", code=1))
    assert any("DRD is clear" in text for text in late["units"][0]["contradictions"])


@pytest.mark.parametrize("name", ["folder/registers", "registers.txt"])
def test_a_file_that_is_not_there_is_no_wrong_number(name: str) -> None:
    result = CliRunner().invoke(main, ["caps", name])
    assert (result.exit_code, result.output) == (2, f"vtd: {name}: No such file or directory\n")


def test_a_unit_without_address_widths_has_no_second_stage() -> None:
    assert "second stage: none\n" in run("1", "2", code=1)


def test_a_log_without_registers_is_refused() -> None:
    result = CliRunner().invoke(main, ["caps", "-"], input="nothing here\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no line with cap and ecap of a unit" in result.stderr
