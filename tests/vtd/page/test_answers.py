"""The page says what the commands say: its answers are their documents, and it needs no more."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.page_inputs import INPUTS, ROOT, TABLES, VALUES
from vtd.cli import main
from vtd.dmar.table import Table
from vtd.dmar.written_edits import EDITS
from vtd.page import calls
from vtd.page.answers import Page, sarif
from vtd.page.given import Kind, UnknownInputError, recognised


def documents(text: str) -> list[object]:
    """The JSON documents that a command has printed, one after the other."""
    found, place, decoder = [], 0, json.JSONDecoder()
    while place < len(text.rstrip()):
        document, place = decoder.raw_decode(text, place)
        found.append(document)
        place += 1
    return found


@pytest.mark.parametrize("name", INPUTS)
def test_answers_are_what_the_commands_print(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, data in INPUTS[name]:
        (tmp_path / file).write_bytes(data)
    page = Page(INPUTS[name]).row()
    assert page["answers"] or page["notes"]
    for answer in page["answers"]:
        program, *arguments = shlex.split(answer["command"])
        assert program == "vtd"
        done = CliRunner().invoke(main, arguments)
        printed = documents(done.stdout)
        expected = printed if answer["kind"] == "table" else printed[0]
        assert answer["document"] == expected, answer["command"]


@pytest.mark.parametrize("name", ["iasl-template-1", "hex dump", "server"])
def test_sarif_and_an_edited_table_are_those_of_the_commands(name: str, tmp_path: Path) -> None:
    (table, data) = next(each for each in INPUTS[name] if recognised(*each).kind is Kind.TABLE)
    (tmp_path / table).write_bytes(data)
    done = CliRunner().invoke(main, ["dmar", "validate", str(tmp_path / table), "--format=sarif"])
    found = json.loads(sarif([(str(tmp_path / table), data)]))
    assert found == json.loads(done.stdout)
    edits = {"drop-rmrr": ["all"], "oem-id": ["MINE"]}
    options = [f"--{name}={text}" for name, texts in edits.items() for text in texts]
    output = tmp_path / "edited"
    CliRunner().invoke(main, ["dmar", "edit", str(tmp_path / table), "-o", str(output), *options])
    assert Page(INPUTS[name]).edited(edits) == output.read_bytes()
    assert Table.parse(output.read_bytes()).header.oem_id.startswith(b"MINE")


def test_every_edit_of_the_page_is_an_option_of_the_command() -> None:
    shown = CliRunner().invoke(main, ["dmar", "edit", "--help"]).stdout
    options = set(re.findall(r"--([a-z-]+)", shown)) - {"help", "output"}
    assert options == set(EDITS)
    for name, (form, _) in EDITS.items():
        assert form in shown, name


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (VALUES, Kind.VALUES),
        (b"d2008c222f0606 f00f5e\nd2008c222f0606,f00f5e", Kind.VALUES),
        (b"[    0.0] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c ecap f0", Kind.LOG),
        (b"00:02.0 VGA compatible controller: Display", Kind.LISTING),
        (b"7b000000-7f7fffff : Reserved", Kind.MEMORY_MAP),
    ],
)
def test_an_input_is_known_by_its_content(data: bytes, kind: Kind) -> None:
    assert recognised("pasted", data).kind is kind


@pytest.mark.parametrize("form", ["toml", "dsl"])
def test_a_table_is_known_in_the_forms_that_export_writes(form: str, tmp_path: Path) -> None:
    table = TABLES / "clean" / "iasl-template-1.bin"
    text = CliRunner().invoke(main, ["dmar", "export", str(table), "--form", form]).stdout
    found = recognised("pasted", text.encode())
    assert found.kind is Kind.TABLE
    assert found.tables[0].data[48:] == table.read_bytes()[48:]


def test_the_calls_of_the_page_are_about_the_same_page() -> None:
    given = [[name, data] for name, data in INPUTS["server"]]
    page = Page(INPUTS["server"])
    assert json.loads(calls.answers(given)) == json.loads(json.dumps(page.row()))
    assert calls.findings_as_sarif(given) == sarif(INPUTS["server"])
    edits = [["oem-id", "MINE"], ["drop-rmrr", "all"]]
    assert calls.edited(given, edits) == page.edited({"oem-id": ["MINE"], "drop-rmrr": ["all"]})
    assert [name for name, _ in json.loads(calls.about())["edits"]] == [*EDITS]


@pytest.mark.parametrize("data", [b"", b" \n", b"good morning", b"12 34", b"caps ecap"])
def test_what_is_nothing_of_all_that_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises(UnknownInputError, match=r"pasted: (empty|neither a DMAR table)"):
        recognised("pasted", data)
    assert Page([("pasted", data)]).row()["answers"] == []


@pytest.mark.parametrize("call", ["answers", "report"])
def test_the_page_needs_neither_the_command_line_nor_compiled_packages(call: str) -> None:
    if call == "report":
        pytest.importorskip("jinja2", reason="the report extra is not installed")
    needless = ("typer", "click", "rich", "numpy", "pyarrow", "numba", "multiprocessing", "ctypes")
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in needless)
    program = (
        f"import sys\n{blocked}from vtd.page import calls\n"
        f"assert 'CAP.PSI' in calls.{call}([('values', {VALUES!r})])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours = {name for name in done.stdout.split() if name.split(".")[0] in ("vtd", "devices")}
    assert "vtd.page.answers" in ours
    assert not [name for name in ours if name.startswith("vtd.commands")]
    assert call == "report" or "vtd.unit.unit" not in ours
