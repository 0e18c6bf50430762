"""The commands of vtd dmar: what they print, which exit code they give, what they refuse."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.dmar_corpus import CleanTable, clean_tables, malformed_tables
from vtd.commands.dmar import app
from vtd.commands.reading import LARGEST_TABLE_FILE
from vtd.dmar.rules import RULES, Severity, validate

KNOWN = {each.id.split("-", 1)[1]: each for each in clean_tables()}
MULTISEG = KNOWN["synthetic-multiseg2"]
BROKEN = next(each for each in malformed_tables() if "m060" in each.id)


def run(*arguments: str, stdin: bytes = b"", code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exit_code == code, result.output
    return result.stdout


def saved(folder: Path, known: CleanTable, name: str = "table.bin") -> str:
    file = folder / name
    file.write_bytes(known.data)
    return str(file)


@pytest.mark.parametrize("format", ["text", "json", "jsonl", "sarif", "junit"])
def test_validate_reads_stdin_and_writes_every_format(format: str) -> None:
    output = run("validate", "-", "--format", format, stdin=BROKEN.data, code=1)
    assert "DMAR-U01" in output


def test_validate_json_has_the_promised_form() -> None:
    (known,) = json.loads(run("validate", "-", "--format", "json", stdin=BROKEN.data, code=1))
    assert known == {
        "file": "stdin",
        "findings": [
            {
                "rule": "DMAR-U01",
                "severity": "error",
                "offset": 80,
                "message": "register base is 0",
            }
        ],
    }


def test_the_exit_code_follows_fail_on() -> None:
    for broken in malformed_tables()[::5]:
        worst = max(each.severity for each in validate(broken.data))
        for level in Severity:
            code = int(worst >= level)
            run("validate", "-", "--fail-on", str(level), stdin=broken.data, code=code)


def test_info_alone_is_no_failure() -> None:
    run("validate", "-", stdin=KNOWN["qemu-1"].data)


def test_select_and_ignore_take_beginnings_of_ids() -> None:
    every = run("validate", "-", "--select", "U,DMAR-H", stdin=BROKEN.data, code=1)
    assert "DMAR-U01" in every
    run("validate", "-", "--ignore", "u01", stdin=BROKEN.data)
    run("validate", "-", "--select", "Q", stdin=BROKEN.data, code=2)


def test_several_tables_of_a_file_are_numbered() -> None:
    data = MULTISEG.data + KNOWN["qemu-1"].data
    objects = json.loads(run("validate", "-", "--format", "json", stdin=data))
    assert [each["file"] for each in objects] == ["stdin#1", "stdin#2"]


def test_rules_are_explained_and_listed() -> None:
    text = run("validate", "--explain", "DMAR-U08")
    assert "Specification: VT-d 8.3" in text
    assert "ACRN: logs an error" in text
    assert len(run("rules").splitlines()) == len(RULES)


def acpi_table(signature: bytes, body: bytes) -> bytes:
    return signature + (36 + len(body)).to_bytes(4, "little") + bytes(28) + body


def test_data_of_the_platform_brings_in_more_rules(tmp_path: Path) -> None:
    files = {
        "madt": acpi_table(b"APIC", bytes(8) + bytes([1, 12, 7]) + bytes(9)),
        "hpet": acpi_table(b"HPET", bytes(16) + bytes([5, 0, 0, 0])),
        "srat": acpi_table(b"SRAT", bytes(12)),
        "memory-map": b"00001000-00001fff : Reserved",
        "lspci": b"00:1f.3 Audio device",
        "namespace": b"\\_SB_.PCI0",
    }
    arguments = ["--registers", "fb000000:0:0", "--registers", "fb001000:0:0:ffffffff"]
    for option, data in files.items():
        (tmp_path / option).write_bytes(data)
        arguments += [f"--{option}", str(tmp_path / option)]
    output = run("validate", "-", "--select", "K", *arguments, stdin=MULTISEG.data, code=1)
    found = {word for word in output.split() if word.startswith("DMAR-K")}
    assert found == {f"DMAR-K{number:02}" for number in (1, 2, 3, 4, 6, 8, 14)}


def test_unusable_input_ends_with_2(tmp_path: Path) -> None:
    run("validate", code=2)
    run("validate", str(tmp_path / "absent"), code=2)
    run("validate", "-", stdin=b"no table here", code=2)
    run("show", "-", stdin=b"DMAR", code=2)
    run("scope", "-", "nonsense", stdin=MULTISEG.data, code=2)
    run("build", "-", "-o", "-", stdin=b"colour = 1", code=2)
    run("build", "-", "-o", "-", stdin=b"\n", code=2)
    text, table = tmp_path / "text", saved(tmp_path, MULTISEG)
    text.write_text("no table at all")
    no_table = CliRunner().invoke(app, ["validate", table, "--madt", str(text)])
    assert f"{text}: no APIC table" in no_table.stderr
    run("validate", "-", "--madt", table, stdin=MULTISEG.data, code=2)
    run("validate", "-", "--registers", "x", stdin=MULTISEG.data, code=2)


def test_show_prints_the_tree_and_the_decoded_content() -> None:
    tree = run("show", "-", stdin=MULTISEG.data)
    assert "DRHD at 0x048, 32 bytes" in tree
    shown = json.loads(run("show", "-", "--format", "json", stdin=MULTISEG.data))
    assert shown["decoded"] == MULTISEG.decoded


def test_show_says_that_a_file_holds_no_dmar_table(tmp_path: Path) -> None:
    (tmp_path / "IVRS").write_bytes(b"IVRS" + (48).to_bytes(4, "little") + bytes(40))
    result = CliRunner().invoke(app, ["show", str(tmp_path / "IVRS")])
    assert "signature is b'IVRS': this is no DMAR table" in result.stderr
    assert result.stderr.count("\n") == 1


def test_show_with_offsets_lists_every_byte_once() -> None:
    malformed = [each.data for each in malformed_tables()[2::9]]
    for data in [*(known.data for known in [*KNOWN.values()][:20]), *malformed]:
        lines = run("show", "-", "--offsets", stdin=data).splitlines()
        position = 0
        for line in lines:
            start, decimal, length = line[1 : line.index("]")].split()
            assert int(start.rstrip("h"), 16) == int(decimal) == position
            position += int(length)
        assert position == len(data)


def test_export_and_build_give_the_same_file(tmp_path: Path) -> None:
    description, table = tmp_path / "table.toml", tmp_path / "again.bin"
    run("export", "-", "-o", str(description), stdin=MULTISEG.data)
    run("build", str(description), "-o", str(table))
    assert table.read_bytes() == MULTISEG.data


def test_edit_changes_a_table_and_diff_tells(tmp_path: Path) -> None:
    before, after = saved(tmp_path, MULTISEG), str(tmp_path / "after.bin")
    run(
        "edit", before, "-o", after,
        "--drop-rmrr", "0x7a000000",
        "--add-rmrr", "0x7b000000-0x7b000fff=00:14.0",
        "--move", "00:05.0=0xfb000000",
        "--set-flag", "dma_ctrl_platform_opt_in=1",
    )  # fmt: skip
    output = run("diff", before, after, code=1)
    assert "region 0x7a000000-0x7a00ffff: shrank by 0xf000 bytes, now 0x7b000000" in output
    assert "unit 0xfb000000: scope new: pci_endpoint 00:05.0" in output
    assert len(json.loads(run("diff", before, after, "--format", "json", code=1))) == 3
    assert run("diff", before, before) == ""
    for bad in ("--set-flag=x", "--set-flag=intr_remap=2", "--drop-rmrr=z", "--move=00:02.0"):
        run("edit", before, "-o", after, bad, code=2)


LSPCI = """\
00:01.0 PCI bridge [0604]: Root Port
\tBus: primary=00, secondary=03, subordinate=03, sec-latency=0
03:00.0 Ethernet controller [0200]: Network
00:14.0 USB controller [0c03]: xHCI
"""


@pytest.mark.parametrize(
    "data", [MULTISEG.data[:-1], MULTISEG.data[:4] + bytes(4) + MULTISEG.data[8:]]
)
def test_a_table_that_is_not_whole_is_not_edited(data: bytes) -> None:
    """The new Length would make a sound table of what is left."""
    run("edit", "-", "-o", "-", "--set-flag", "intr_remap=0", stdin=data, code=2)


@pytest.mark.parametrize(
    "option",
    [
        ("--drop-rmrr", "here"),
        ("--add-rmrr", "0x10g0-0x1fff=00:14.0"),
        ("--oem-revision", "1f"),
        ("--add-rmrr", "0x1000-there=00:14.0"),
        ("--move", "00:14.0=there"),
    ],
)
def test_a_number_that_is_none_is_named(option: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["edit", "-", "-o", "-", *option], input=MULTISEG.data)
    assert result.exit_code == 2
    assert "literal" not in result.stderr
    assert result.stderr.startswith("vtd: edit: ")


def test_scope_tells_unit_bridges_and_regions(tmp_path: Path) -> None:
    lspci = tmp_path / "lspci.txt"
    lspci.write_text(LSPCI)
    arguments = ("scope", "-", "03:00.0", "--lspci", str(lspci), "--format", "json")
    answer = json.loads(run(*arguments, stdin=MULTISEG.data))
    assert answer["unit"] == "0xfb000000"
    assert answer["reason"] == "below a listed bridge"
    assert answer["bridges"] == ["0000:00:01.0"]
    assert answer["atsr"] == "at 0xe0"
    text = run("scope", "-", "00:14.0", stdin=MULTISEG.data)
    assert "0x7a000000-0x7a00ffff" in text
    assert "no unit covers it" in run("scope", "-", "0009:00:14.0", stdin=MULTISEG.data, code=1)


def test_rmrr_tells_policies_and_memory_map(tmp_path: Path) -> None:
    lspci, memory = tmp_path / "lspci.txt", tmp_path / "iomem"
    lspci.write_text(LSPCI)
    memory.write_text("7a000000-7a00ffff : Reserved\n")
    arguments = ("rmrr", "-", "--lspci", str(lspci), "--memory-map", str(memory))
    output = run(*arguments, stdin=MULTISEG.data, code=1)
    assert "0000:00:14.0: 0x7a000000-0x7a00ffff, 64 KiB, reserved" in output
    assert "0001:00:14.0: 0x7a010000-0x7a01ffff, 64 KiB, NOT reserved" in output
    assert "Linux: allowed" in output
    assert len(json.loads(run("rmrr", "-", "--format", "json", stdin=MULTISEG.data, code=1))) == 2


def test_audit_tells_what_is_proved_and_what_is_not() -> None:
    output = run("audit", "-", stdin=MULTISEG.data, code=1)
    assert "bad   DMA_CTRL_PLATFORM_OPT_IN" in output
    assert "open  use: not in the table" in output
    verdicts = json.loads(run("audit", "-", "--format", "json", stdin=MULTISEG.data, code=1))
    assert {each["verdict"] for each in verdicts} == {"good", "bad", "open"}
    log = json.loads(run("audit", "-", "--format", "sarif", stdin=MULTISEG.data, code=1))
    results = log["runs"][0]["results"]
    assert [each["kind"] for each in results].count("fail") == sum(
        each["verdict"] == "bad" for each in verdicts
    )
    run("audit", "-", "--fail-on", "error", stdin=MULTISEG.data, code=1)


@pytest.mark.parametrize("command", ["show", "rmrr", "audit", "export"])
def test_malformed_tables_pass_through_every_command(command: str) -> None:
    for broken in malformed_tables()[2::7]:
        result = CliRunner().invoke(app, [command, "-"], input=broken.data)
        assert result.exit_code in ((0, 1) if command in ("rmrr", "audit") else (0,))
        assert result.stdout


@pytest.mark.parametrize("command", ["rmrr", "audit", "export"])
def test_what_is_no_whole_table_is_told_beside_the_answer(command: str) -> None:
    for data, doubt in (
        (MULTISEG.data[:60], "vtd: stdin: DMAR-H03: "),
        (MULTISEG.data * 2, "vtd: stdin#1: the first of 2 tables\n"),
    ):
        result = CliRunner().invoke(app, [command, "-"], input=data)
        assert result.exit_code < 2
        assert result.stderr.startswith(doubt)


@pytest.mark.parametrize("size", [36, 47, 48, len(MULTISEG.data)])
@pytest.mark.parametrize("command", ["rmrr", "audit"])
def test_what_is_no_dmar_table_gets_no_verdict(command: str, size: int) -> None:
    data = b"SSDT" + size.to_bytes(4, "little") + MULTISEG.data[8:size]
    result = CliRunner().invoke(app, [command, "-"], input=data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "DMAR-H01" in result.stderr


def test_what_is_no_dmar_table_gets_one_finding() -> None:
    output = run("validate", "-", stdin=b"SSDT" + MULTISEG.data[4:], code=1)
    assert output.count("\n") == 1
    assert "this is no DMAR table" in output


def test_a_cut_table_is_judged_by_nothing_that_was_cut_away() -> None:
    """A table that ends before its first unit has no missing unit, and proves no coverage."""
    cut = MULTISEG.data[:48]
    findings = run("validate", "-", stdin=cut, code=1)
    assert "DMAR-H03" in findings
    assert findings.count("\n") == 1
    assert "good  coverage" not in run("audit", "-", stdin=cut, code=1)
    assert "no RMRR in the part" in run("audit", "-", stdin=cut, code=1)
    assert "in the part of the table that can be read" in run("rmrr", "-", stdin=cut)


def test_a_table_without_regions_says_so() -> None:
    assert run("rmrr", "-", stdin=KNOWN["qemu-1"].data) == "no device has a reserved region\n"
    assert run("rmrr", "-", "--format", "json", stdin=KNOWN["qemu-1"].data) == "[]\n"


def test_rules_and_their_explanations_as_json() -> None:
    rules = json.loads(run("rules", "--format", "json"))
    assert [each["rule"] for each in rules] == list(RULES)
    (one,) = json.loads(run("validate", "--explain", "U08", "--format", "json"))
    assert one == next(each for each in rules if each["rule"] == "DMAR-U08")
    assert one["software"]["Linux"]


@pytest.mark.parametrize("command", ["validate", "show", "export", "rmrr", "audit"])
def test_empty_input_is_unusable(command: str) -> None:
    result = CliRunner().invoke(app, [command, "-"], input=b"")
    assert result.exit_code == 2
    assert bool(result.stdout) == (command == "validate")
    assert "stdin: empty" in result.stderr


def test_a_file_that_is_no_file_of_tables_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as image:
        image.truncate(LARGEST_TABLE_FILE + 1)
    result = CliRunner().invoke(app, ["validate", str(tmp_path / "disk.img")])
    assert result.exit_code == 2
    assert "more than 64 MiB" in result.stderr


def test_a_table_is_exported_as_source_and_read_back(tmp_path: Path) -> None:
    for form in ("dsl", "old-dsl"):
        source = tmp_path / f"table.{form}"
        result = CliRunner().invoke(
            app, ["export", "-", "-o", str(source), "--form", form], input=MULTISEG.data
        )
        assert (result.exit_code, result.stderr) == (0, "")
        assert run("diff", saved(tmp_path, MULTISEG), str(source)) == ""
    wrong = MULTISEG.data[:9] + bytes([MULTISEG.data[9] ^ 1]) + MULTISEG.data[10:]
    result = CliRunner().invoke(app, ["export", "-", "--form", "dsl"], input=wrong)
    assert "not in the source: checksum" in result.stderr
    unknown = KNOWN["synthetic-unknown-type7"].data
    run("export", "-", "--form", "dsl", stdin=unknown, code=2)
