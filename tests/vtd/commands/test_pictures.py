"""``--svg``: each picture is well-formed and names the same entries as the JSON."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from typer.testing import CliRunner

from tests.support.dmar_corpus import clean_tables, malformed_tables
from tests.support.dmar_strategies import damaged_tables
from tests.support.reference_data import capture_folders
from tests.support.world import Mode, World
from tests.support.world_strategies import hostile_worlds
from tests.vtd.commands.test_groups import SHARED
from vtd.cli import main
from vtd.dmar.decoded import decoded
from vtd.dmar.records import FIXED_PART
from vtd.dmar.rules import validate
from vtd.dmar.table import Table
from vtd.dmar.table_picture import table_svg
from vtd.inspection.request_explanation import explain_request
from vtd.inspection.request_picture import request_svg
from vtd.inspection.request_rows import request_row
from vtd.plain import plain

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code in (0, 1), result.output
    return result.stdout


def texts(svg: str) -> list[str]:
    """What is written in a picture, without tips."""
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def all_text(svg: str) -> str:
    """What is written, tips included."""
    return "\n".join(ElementTree.fromstring(svg).itertext())


def entries(row: dict[str, object]) -> Iterator[dict[str, object]]:
    """Structures and paging entries of a walk, those of the second stage before their first."""
    for each in [*row.get("structures", ()), *row.get("steps", ()), *row.get("second", ())]:  # type: ignore[misc]
        yield each
        yield from entries(each)


def check_walk(row: dict[str, object], svg: str) -> None:
    written = texts(svg)
    everything = all_text(svg)
    names = [str(each.get("name") or each.get("level")) for each in entries(row)]
    titles = [each for each in written if each in {*names}]
    assert sorted(titles) == sorted(names)
    for each in entries(row):
        address = each.get("host") or each["address"]
        assert f"at {address}" in everything
        raw = each["entry"]
        if isinstance(raw, str) and "level" in each:
            assert f"{int(raw, 16):#018x}" in written
        fields = each["fields"]
        assert isinstance(fields, dict | None)
        for name, value in (fields or {}).items():
            if value not in (0, "0x0"):
                assert re.search(rf"\b{name}=", everything), name
    if row["physical"] is not None:
        assert f"physical address {row['physical']}" in everything
    if row["fault"] is not None:
        assert isinstance(row["fault"], dict)
        assert f"fault {row['fault']['reason']:02X}h" in everything


@pytest.mark.parametrize("folder", capture_folders(), ids=lambda each: each.name)
def test_a_walk_is_drawn_with_the_entries_of_the_json(folder: Path) -> None:
    sources = json.loads(run("mappings", str(folder), "--format", "json"))["sources"]
    mapped = [each for each in sources if each["leaves"]]
    for source in mapped[:2]:
        device = f"{source['sid'] >> 8:02x}:{source['sid'] >> 3 & 31:02x}.{source['sid'] & 7}"
        for iova in (source["leaves"][0][0], "0x7000000000"):
            arguments = ["walk", str(folder), iova, "--device", device]
            row = json.loads(run(*arguments, "--format", "json"))
            check_walk(row, run(*arguments, "--svg", "-"))
    assert mapped or folder.name == "no-translation"


def test_a_nested_walk_is_drawn_in_both_dimensions() -> None:
    world = World(Mode.NESTED)
    explained = explain_request(world.start().unit.remapping, world.request)
    svg = request_svg(explained)
    check_walk(plain(request_row(explained)), svg)
    written = texts(svg)
    assert [written.count(f"FS-{name}") for name in ("PML4E", "PDPE", "PDE", "PTE")] == [1] * 4
    assert [written.count(f"SS-{name}") for name in ("PML4E", "PDPE", "PDE", "PTE")] == [5] * 4


@given(hostile_worlds())
def test_any_walk_can_be_drawn(world: World) -> None:
    explained = explain_request(world.start().unit.remapping, world.request)
    check_walk(plain(request_row(explained)), request_svg(explained))


TABLES = [(each.id, each.data) for each in clean_tables()]
TABLES += [(each.id, each.data) for each in malformed_tables() if len(each.data) >= FIXED_PART]


@pytest.mark.parametrize(("name", "data"), TABLES[::3], ids=[each[0] for each in TABLES[::3]])
def test_a_table_is_drawn_with_its_structures_and_findings(name: str, data: bytes) -> None:
    table = Table.parse(data)
    findings = validate(data)
    svg = table_svg(table, findings, name)
    written, everything = texts(svg), all_text(svg)
    document = decoded(table)
    wanted = [f"{each['name']} (type {each['type']})" for each in document["structures"]]
    assert [each for each in written if each in {*wanted}] == wanted
    for each in document["structures"]:
        for field in ("register_base", "base", "limit"):
            if field in each:
                assert str(hex(each[field]) if each[field] > 255 else each[field]) in everything
    for found in findings:
        assert f"{found.severity} {found.rule}: " in everything
    assert sum(" DMAR-" in each for each in written) == len(findings)


@given(damaged_tables())
def test_any_table_can_be_drawn(data: bytes) -> None:
    if len(data) >= FIXED_PART:
        ElementTree.fromstring(table_svg(Table.parse(data), validate(data), "damaged"))


def test_groups_are_drawn_as_the_json_has_them(tmp_path: Path) -> None:
    (tmp_path / "lspci").write_text(SHARED)
    document = json.loads(run("groups", str(tmp_path / "lspci"), "--format", "json"))
    svg = run("groups", str(tmp_path / "lspci"), "--svg", "-")
    functions = {bdf for group in document["groups"] for bdf in group}
    drawn: dict[str, list[str]] = {}
    function = ""
    for text in texts(svg):
        function = text if text in functions else function
        if re.fullmatch(r"group \d+", text):
            drawn.setdefault(text, []).append(function)
    assert [drawn[f"group {number}"] for number in range(1, len(drawn) + 1)] == document["groups"]
    written = " ".join(texts(svg))
    for join in document["joins"]:
        assert f"with {join['functions'][0]}: {join['reason']}" in written


@pytest.mark.parametrize("name", ["desktop", "laptop", "server"])
def test_a_plan_is_drawn_with_its_devices_and_verdicts(name: str) -> None:
    arguments = ["passthrough", "plan", str(ROOT / "examples" / "plans" / f"{name}.toml")]
    document = json.loads(run(*arguments, "--format", "json"))
    svg = run(*arguments, "--svg", "-")
    written, everything = texts(svg), all_text(svg)
    for device in document["devices"]:
        assert written.count(device["device"]) == 1
        assert f"unit {device['unit']}" in written
    for verdict in document["verdicts"]:
        assert any(each.startswith(verdict["rule"]) for each in written)
        assert " ".join(verdict["text"].split())[:60] in " ".join(everything.split())
    assert ("The plan works" in written[0]) == document["works"]


class TestFiles:
    def test_a_picture_goes_into_a_file_and_nothing_to_stdout(self, tmp_path: Path) -> None:
        file = tmp_path / "plan.svg"
        plan = str(ROOT / "examples" / "plans" / "server.toml")
        assert run("passthrough", "plan", plan, "--svg", str(file)) == ""
        assert file.read_text() == run("passthrough", "plan", plan, "--svg", "-")

    def test_each_of_several_tables_has_its_own(self, tmp_path: Path) -> None:
        for name in ("a.bin", "b.bin"):
            (tmp_path / "tables").mkdir(exist_ok=True)
            (tmp_path / "tables" / name).write_bytes(TABLES[0][1])
        run("dmar", "show", str(tmp_path / "tables"), "--svg", str(tmp_path / "t.svg"))
        drawn = [(tmp_path / name).read_text() for name in ("t.svg", "t-2.svg")]
        assert ["a.bin" in drawn[0], "b.bin" in drawn[1]] == [True, True]
        arguments = ["dmar", "show", str(tmp_path / "tables"), "--svg", "-"]
        assert CliRunner().invoke(main, arguments).exit_code == 2

    def test_a_name_in_png_makes_it_one(self, tmp_path: Path) -> None:
        pytest.importorskip("vl_convert", reason="needs the plots extra")
        plan = str(ROOT / "examples" / "plans" / "server.toml")
        run("passthrough", "plan", plan, "--svg", str(tmp_path / "plan.png"))
        assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")

    def test_without_the_extra_the_advice_names_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "vl_convert", None)
        plan = str(ROOT / "examples" / "plans" / "server.toml")
        arguments = ["passthrough", "plan", plan, "--svg", str(tmp_path / "plan.png")]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "plots extra" in result.stderr

    def test_a_file_that_can_not_be_written_is_told(self) -> None:
        plan = str(ROOT / "examples" / "plans" / "server.toml")
        result = CliRunner().invoke(main, ["passthrough", "plan", plan, "--svg", "/absent/p.svg"])
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
