"""``vtd machine``: the example is a sound machine; what is wrong with another is said."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from tests.support.reference_data import CAPTURES
from tests.vtd.dmar.listing.test_lspci import VERBOSE
from vtd.cli import main
from vtd.dmar.rules import validate
from vtd.dmar.table import Table

SERVER = str(Path(__file__).parents[3] / "examples" / "machines" / "server.toml")


def test_the_example_is_sound_and_its_table_can_be_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["machine", "check", SERVER])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "2 units, 9 functions, DMAR table of 136 bytes\n"
    table = tmp_path / "dmar.bin"
    assert CliRunner().invoke(main, ["machine", "table", SERVER, "-o", str(table)]).exit_code == 0
    assert validate(table.read_bytes()) == []
    assert [each.register_base for each in Table.parse(table.read_bytes()).units] == [
        0xFED9_0000,
        0xFED9_2000,
    ]


def test_functions_are_shown_with_unit_ids_and_group() -> None:
    result = CliRunner().invoke(main, ["machine", "show", SERVER, "--format", "json"])
    document = json.loads(result.stdout)
    rows = {each["function"]: each for each in document["functions"]}
    assert rows["0000:00:02.0"]["unit"] == "0xfed90000"
    assert rows["0000:05:04.0"]["requester_ids"] == ["05:04.0", "05:00.0"]
    assert rows["0000:03:10.2"]["virtual_function_of"] == "0000:03:00.0"
    groups = [each["group"] for each in rows.values()]
    assert len(set(groups)) == len(groups) - 1  # the old device shares that of its bridge
    assert rows["0000:05:04.0"]["group"] == rows["0000:00:1d.0"]["group"]
    order = [each["function"] for each in document["functions"]]
    assert order.index("0000:03:10.2") == order.index("0000:03:00.0") + 2  # after their function
    text = CliRunner().invoke(main, ["machine", "show", SERVER]).stdout
    assert "    0000:04:00.0 disk (nvme)" in text
    assert "old (edu), arrives as 05:00.0" in text


def test_a_real_machine_is_described_and_what_is_not_known_is_told(tmp_path: Path) -> None:
    listing = tmp_path / "lspci"
    listing.write_text(VERBOSE)
    result = CliRunner().invoke(main, ["machine", "describe", str(listing)])
    assert result.exit_code == 0
    assert "no DMAR table" in result.stderr
    file = tmp_path / "m.toml"
    file.write_text(result.stdout)
    assert CliRunner().invoke(main, ["machine", "show", str(file)]).exit_code == 0
    table = str(CAPTURES / "legacy48-strict" / "DMAR.bin")
    with_table = CliRunner().invoke(main, ["machine", "describe", str(listing), "--table", table])
    assert "profile" in with_table.stderr
    assert "base = 0xfed90000" in with_table.stdout


def test_a_doubtful_table_is_a_finding(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(
        '[[unit]]\nbase = 0xfed90000\nprofile = "qemu"\ninclude_all = true\n'
        '[[function]]\nname = "x"\nat = "00:02.0"\n'
        '[[region]]\nstart = 0x1800\nsize = 0x1000\ndevices = ["x"]\n'
    )
    result = CliRunner().invoke(main, ["machine", "check", str(file)])
    assert result.exit_code == 1
    assert "DMAR-R" in result.stdout


def test_each_thing_that_is_wrong_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[[unit]]\nbase = 1\nprofile = "x"\n[[function]]\nat = "x/00.0"\n')
    for command in (["check"], ["show"], ["table", "-o", "-"]):
        result = CliRunner().invoke(main, ["machine", command[0], str(file), *command[1:]])
        assert (result.exit_code, result.stdout) == (2, "")
        lines = result.stderr.splitlines()
        assert len(lines) == 2 and all(line.startswith(f"vtd: {file}:") for line in lines)
    missing = CliRunner().invoke(main, ["machine", "check", str(tmp_path / "none.toml")])
    assert missing.exit_code == 2
    assert "No such file" in missing.stderr
    assert CliRunner().invoke(main, ["machine"]).exit_code == 2
