"""A report shows what the commands give as JSON, in one file that asks nobody."""

from __future__ import annotations

import gzip
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.support.dmar_corpus import clean_tables, malformed_tables
from tests.support.reference_data import capture_folders, recordings, vector_files
from tests.vtd.commands.test_groups import SHARED
from vtd.cli import main

pytest.importorskip("jinja2", reason="needs the report extra")

from tests.vtd.report.pages import Element, parsed, written
from vtd.inspection.reach import PageFlags, ReachedRange
from vtd.page.reporting import report
from vtd.report.page import POLICY, size
from vtd.report.units import packed

ROOT = Path(__file__).parents[3]
PLANS = sorted((ROOT / "examples" / "plans").glob("*.toml"))
FAULTS = next(each for each in capture_folders() if each.name == "edu-faults-legacy48")


def document(*arguments: str) -> Any:
    result = CliRunner().invoke(main, [*arguments, "--format", "json"])
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def section(page: Element, kind: str) -> Element:
    (found,) = page.all("section", data_kind=kind)
    return found


def check_page(text: str) -> Element:
    """What holds for every report."""
    page = parsed(text)
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    assert policy.attributes["content"] == POLICY
    links = [each.attributes["href"] or "" for each in page.all("a")]
    ids = [each.attributes["id"] for name in ("section", "article", "main") for each in
           page.all(name) if "id" in each.attributes]  # fmt: skip
    assert len(ids) == len(set(ids))
    assert all(each.startswith("#") and each[1:] in ids for each in links)
    assert not any(page.all(name) for name in ("img", "iframe", "link", "object", "form"))
    assert "url(" not in text
    assert "@import" not in text
    for table in page.all("table"):
        assert table.all("caption")
        assert all("scope" in each.attributes for each in table.all("th"))
    for region in page.all("div", role="region"):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-label"]
    levels = [int(name[1]) for name in re.findall(r"<(h[1-6])[ >]", text)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("main")) == len(page.all("nav")) == 1
    return page


def check_findings(page: Element, name: str) -> None:
    (result,) = document("dmar", "validate", name)
    rows = [each.cells() for each in section(page, "table").all("tr", class_="finding")]
    assert [[int(row[0], 16), *row[1:]] for row in rows] == [
        [each["offset"], each["severity"], each["rule"], " ".join(each["message"].split())]
        for each in result["findings"]
    ]


def unpacked(text: str) -> list[tuple[int, int, int, str]]:
    """Address, length, physical address and rights, as the script of the page reads them."""
    found, end = [], 0
    for word in text.split():
        hole, length, physical, rights = word.split(".")
        start = end + int(hole, 36)
        end = start + int(length, 36)
        found.append((start << 12, int(length, 36) << 12, int(physical, 36) << 12, rights))
    return found


def check_map(page: Element, name: str) -> None:
    part = section(page, "translation")
    sources = document("mappings", name)["sources"]
    rows = [each.cells() for each in part.all("tr", class_="source")]
    texts = {
        each.attributes["id"]: json.loads(each.text)
        for each in part.all("script", type="application/json")
    }
    number = part.attributes["id"]
    assert len(rows) == len(sources)
    for source, row in zip(sources, rows, strict=True):
        assert row[2] == source["kind"]
        assert int(row[4]) == len(source["leaves"])
        assert row[3] == ("" if source["domain_id"] is None else str(source["domain_id"]))
        if not source["leaves"]:
            continue
        ranges = unpacked(texts[f"{number}-packed-{int(row[6]) - 1}"])
        leaves = {int(each[0], 16): each for each in source["leaves"]}
        assert sum(each[1] for each in ranges) == sum(int(each[1], 16) for each in leaves.values())
        for start, length, physical, rights in ranges:
            at = start
            while at < start + length:
                _, size_, where, may = leaves[at]
                assert (int(where, 16), may) == (physical + at - start, rights)
                at += int(size_, 16)


def check_interrupts(page: Element, name: str) -> None:
    entries = document("irte", name)["entries"]
    rows = [each.cells() for each in section(page, "interrupts").all("tr", class_="irte")]
    assert [(row[0], row[3]) for row in rows] == [
        (str(each["index"]), f"{each['hi']} {each['lo']}") for each in entries
    ]
    assert all(
        row[2].startswith(each["requesters"]) for row, each in zip(rows, entries, strict=True)
    )


def check_walks(page: Element) -> None:
    walks = section(page, "translation").all("details", class_="walk")
    for walk in walks[:3]:
        command = walk.all("code")[-1].text.split()
        row = document(*command[1:-2])
        steps = walk.all("li", class_="step")
        entries = [*row["structures"], *row["steps"]]
        assert len(steps) == len(entries)  # none of the captures is nested
        for step, entry in zip(steps, entries, strict=True):
            address = entry.get("host") or entry["address"]
            assert f"{entry.get('name') or entry['level']} at {address}" in step.text
            named = {each.cells()[1] for each in step.all("tr")[1:]}
            fields = entry["fields"] or {}
            assert named == {name for name in fields if fields[name] not in (0, "0x0")}
    assert walks


def check_log(page: Element, *arguments: str) -> None:
    log = document("explain", *arguments)
    part = section(page, "log")
    cards = part.all("article", class_="fault")
    assert len(cards) == len(log["faults"])
    for card, fault in zip(cards, log["faults"], strict=True):
        times = "once" if fault["count"] == 1 else f"{fault['count']} times"
        assert f"{fault['device'] or 'Unknown device'}: {fault['kind']}" in card.text
        assert times in card.text
        for each in (*fault["likely"], *fault["look_at"], fault["text"] or ""):
            assert " ".join(each.split()) in card.text
    (table,) = part.all("table") or [Element("table", {})]
    kinds = [each.cells()[0] for each in table.all("tr")[1:]]
    assert kinds == [each["weight"] for each in log["messages"]]


@pytest.mark.parametrize("folder", capture_folders(), ids=lambda each: each.name)
def test_a_capture(folder: Path, tmp_path: Path) -> None:
    text = written(tmp_path, str(folder))
    assert len(text) < 5_000_000
    page = check_page(text)
    check_findings(page, str(folder / "DMAR.bin"))
    check_map(page, str(folder))
    check_interrupts(page, str(folder))
    check_walks(page)
    log, table, pci = folder / "dmesg-iommu.txt", folder / "DMAR.bin", tmp_path / "pci.json"
    pci.write_bytes(gzip.decompress((folder / "topology.json.gz").read_bytes()))
    if log.exists():
        check_log(page, str(log), "--dmar", str(table), "--lspci", str(pci))
    replayed = document("replay", str(folder))["files"][0]
    assert f"{replayed['passed']} of {replayed['steps']} steps" in section(page, "replay").text


def test_faults_of_a_log_are_walked_and_on_the_time_line(tmp_path: Path) -> None:
    page = check_page(written(tmp_path, str(FAULTS)))
    log = document("explain", str(FAULTS / "dmesg-iommu.txt"))
    walks = [each.text for each in section(page, "translation").all("summary")]
    for fault in log["faults"]:
        verb = "reads" if fault["kind"] == "DMA read" else "writes"
        blocked = f"{verb} {fault['ranges'][0][0]} blocked: fault {fault['reason']:02X}h"
        assert any(blocked in each for each in walks)
    (timeline,) = page.all("section", id="timeline")
    rows = [each.cells() for each in timeline.all("table")[0].all("tr")[1:]]
    lines = {f"{first} to {last}" if last != first else str(first)
             for first, last in (each["lines"] for each in log["faults"])}  # fmt: skip
    assert lines <= {row[1] for row in rows}


TABLES = [*clean_tables()[::12], *malformed_tables()[::10]]


@pytest.mark.parametrize("table", TABLES, ids=lambda each: each.id)
def test_a_table(table: Any, tmp_path: Path) -> None:
    file = tmp_path / "table.bin"
    file.write_bytes(table.data)
    page = check_page(written(tmp_path, str(file)))
    check_findings(page, str(file))
    if len(table.data) < 48:
        return
    shown = document("dmar", "show", str(file))["decoded"]
    names = [each.text.split(" at ")[0] for each in section(page, "table").all("h4")]
    expected = [f"{each['name']} (type {each['type']})" for each in shown["structures"]]
    assert [each for each in names if "(type " in each] == expected
    bytes_shown = "".join(
        each.text for each in section(page, "table").all("span", class_="bytes")
    ).replace(" ", "")
    if len(table.data) < 1024:
        assert bytes_shown == table.data.hex()


def test_a_table_a_listing_and_a_log_explain_each_other(tmp_path: Path) -> None:
    listing, table, log = (tmp_path / name for name in ("lspci.txt", "DMAR.bin", "dmesg.txt"))
    listing.write_text(SHARED)
    table.write_bytes(clean_tables()[0].data)
    log.write_text(
        "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1000 "
        "[fault reason 0x05] PTE Write access is not set\n"
    )
    page = check_page(written(tmp_path, *map(str, (log, table, listing))))
    check_log(page, str(log), "--dmar", str(table), "--lspci", str(listing))
    groups = document("groups", str(listing))["groups"]
    rows = {each.cells()[0]: each.cells() for each in section(page, "machine").all("tr")}
    for number, group in enumerate(groups, 1):
        for function in group:
            assert rows[function][2].startswith(f"group {number}")
            scope = document("dmar", "scope", str(table), function, "--lspci", str(listing))
            assert (scope["unit"] or "") in rows[function][3]
            assert scope["reason"] in rows[function][3]


@pytest.mark.parametrize("plan", PLANS, ids=lambda each: each.stem)
def test_a_plan(plan: Path, tmp_path: Path) -> None:
    page = check_page(written(tmp_path, str(plan)))
    judged = document("passthrough", "plan", str(plan))
    part = section(page, "plan")
    texts = part.text
    for verdict in judged["verdicts"]:
        assert " ".join(verdict["text"].split()) in texts
        assert verdict["rule"] in texts
    assert len(section(page, "machine").all("tr")) > len(judged["devices"])


def test_a_recording_and_a_scenario(tmp_path: Path) -> None:
    stale = next(each for each in recordings() if "stale" in each.name)
    page = check_page(written(tmp_path, str(stale)))
    (found,) = document("audit", str(stale))
    rows = [each.cells() for each in section(page, "audit").all("tr", class_="finding")]
    assert [row[0] for row in rows] == [str(each["line"]) for each in found["findings"]]
    scenario = vector_files()[0]
    page = check_page(written(tmp_path, str(scenario)))
    assert "0 mismatches" in section(page, "replay").text


def test_capability_registers(tmp_path: Path) -> None:
    file = tmp_path / "registers"
    file.write_text("0x80d2008c222f0606 0xf00f4a\n0xd2008c40660462 0xf050da\n")
    page = check_page(written(tmp_path, str(file)))
    row = document("caps", *file.read_text().split())
    rows = {each.cells()[0]: each.cells()[1:] for each in section(page, "capabilities").all("tr")}
    for name in row["units"][0]["fields"]:
        shown = f"{name} differs" if name in row["differ"] else name
        assert rows[shown] == [str(each["fields"][name]) for each in row["units"]]


def test_a_collection(tmp_path: Path) -> None:
    name = str(ROOT / "tests" / "collections" / "guest-root.tar.gz")
    page = check_page(written(tmp_path, name))
    kinds = [each.attributes["data-kind"] for each in page.all("section", class_="part")]
    assert {"machine", "table", "log"} <= set(kinds)
    check_log(page, name)
    groups = document("groups", name)["groups"]
    rows = {each.cells()[0]: each.cells() for each in section(page, "machine").all("tr")}
    for number, group in enumerate(groups, 1):
        assert all(rows[each][2].startswith(f"group {number}") for each in group)


def test_a_sweep(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="sweeps need the batch extra")
    pytest.importorskip("pyarrow", reason="sweeps need the batch extra")
    workload, trace, results = (tmp_path / name for name in ("w.toml", "t.jsonl", "r.json"))
    workload.write_text('[[stream]]\nkind = "nic"\nring = 16\nfunctions = 2\n')
    arguments = ["trace", "generate", str(workload), "-o", str(trace), "--rows", "500"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    shapes = ["--iotlb", "sets=1..4", "ways=1..2", "policy=lru,fifo", "--jobs", "1"]
    swept = document("sweep", str(trace), *shapes, "-o", str(results))
    part = section(check_page(written(tmp_path, str(results))), "sweep")
    rows = [each.cells() for each in part.all("tr", class_="design")]
    assert [(int(row[1]), int(row[2]), row[3], int(row[8])) for row in rows] == [
        (each["sets"], each["ways"], each["policy"], each["misses"]) for each in swept["results"]
    ]
    heat = [float(each.text) for each in part.all("td") if "style" in each.attributes]
    assert sorted(heat) == sorted(round(each["miss_ratio"], 4) for each in swept["results"])
    assert len(part.all("svg")) == 1


def test_the_page_for_trying_gives_the_report_of_the_command(tmp_path: Path) -> None:
    files = {"lspci": SHARED.encode(), "DMAR": clean_tables()[0].data, "log": b"DMAR: enabled\n"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    text = written(tmp_path, *(str(tmp_path / name) for name in files))
    assert report(list(files.items())) == text.replace(f"{tmp_path}/", "")


RANGES = st.lists(
    st.tuples(
        st.integers(0, 1 << 30), st.integers(1, 1 << 20), st.integers(0, (1 << 40) - 1),
        st.sampled_from(["rw", "r-", "-w"]),
    ),
    max_size=30,
)  # fmt: skip


@given(RANGES)
def test_packed_ranges_are_the_ranges(given: list[tuple[int, int, int, str]]) -> None:
    flags = PageFlags(user=True, accessed=False, dirty=False)
    ranges, end = [], 0
    for hole, length, physical, rights in given:
        start = end + (hole << 12)
        end = start + (length << 12)
        ranges.append(ReachedRange(start, length << 12, physical << 12, None, rights, flags))
    assert unpacked(packed(ranges)) == [
        (each.address, each.length, each.physical, each.rights) for each in ranges
    ]


def test_100_000_ranges_that_do_not_join_fit_in_half_a_page() -> None:
    flags = PageFlags(user=True, accessed=False, dirty=False)
    ranges = [
        ReachedRange(number << 13, 0x1000, (number * 7919 & 0xFFFFFF) << 12, None, "rw", flags)
        for number in range(100_000)
    ]
    assert len(packed(ranges)) < 2_500_000


def test_sizes_are_in_the_largest_unit_that_divides_them() -> None:
    assert [size(each) for each in (0, 5, 4096, 3 << 20, 1 << 30, 5 << 40)] == [
        "0 bytes", "5 bytes", "4 KiB", "3 MiB", "1 GiB", "5 TiB",
    ]  # fmt: skip


class TestRefusals:
    def test_without_the_extra_the_advice_names_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "jinja2", None)
        monkeypatch.delitem(sys.modules, "vtd.report.page", raising=False)
        arguments = ["report", str(FAULTS), "-o", str(tmp_path / "r.html")]
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert "report extra" in result.stderr

    @pytest.mark.parametrize("data", [b"", b"nothing of interest\n", b"\1\2\3", b"{}", b"a = 1\n"])
    def test_what_is_nothing_of_these_is_told_in_a_line(self, data: bytes, tmp_path: Path) -> None:
        file = tmp_path / "input"
        file.write_bytes(data)
        arguments = ["report", str(file), "-o", str(tmp_path / "r.html")]
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert str(file) in result.stderr
        assert not (tmp_path / "r.html").exists()

    def test_an_empty_folder_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        arguments = ["report", str(tmp_path / "empty"), "-o", str(tmp_path / "r.html")]
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
