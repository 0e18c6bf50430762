"""The *Try it* page in a browser: it shows what the commands say, alone, and to everybody."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.browser.browser import PATIENCE, Served, Watched, browser, leaves, missing, served
from tests.page_inputs import INPUTS
from vtd.cli import main
from vtd.page.answers import Inputs

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no browser tests: {'; '.join(missing())}")
HOSTILE = [
    text.format(number)
    for number in range(10)
    for text in (
        "<script>hostile={0}</script>",
        "<img src=x onerror=hostile={0}>",
        "\"><svg onload='hostile={0}'>",
        "'><a href='javascript:hostile={0}'>",
        "</textarea><iframe srcdoc='<script>parent.hostile={0}</script>'>",
        "${{hostile={0}}}",
        "{{{{hostile={0}}}}}",
        "</td><td onclick=hostile={0}>",
        "<style>*{{display:none}}/*{0}",
        "&lt;b&gt;{0}<b>",
    )
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The site's page as it would be built now."""
    from scripts.site import SOURCE, write_try_page  # noqa: PLC0415 - needs what a skip may lack

    folder = tmp_path_factory.mktemp("site")
    for name in ("style.css", "icon.svg"):
        shutil.copyfile(SOURCE / name, folder / name)
    write_try_page(folder / "try", ["index.html", "try/index.html"])
    with served(folder) as server:
        yield server


@pytest.fixture(scope="module")
def tried(site: Served) -> Iterator[Watched]:
    """The page, loaded once, with Python running in it."""
    with browser() as chromium:
        context = chromium.new_context(viewport={"width": 1440, "height": 900})
        watched = Watched(context)
        watched.page.goto(f"{site.origin}/try/index.html")
        watched.page.locator("body[data-ready]").wait_for()
        yield watched


def give(watched: Watched, inputs: Inputs) -> None:
    """Take away what the page has, and choose these files."""
    page = watched.page
    while page.locator("#inputs button").count():
        page.locator("#inputs button").first.click()
    page.locator("body").evaluate("(body) => { delete body.dataset.state; }")
    if not inputs:
        return
    files = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
        for name, data in inputs
    ]
    page.locator("#files").set_input_files(files)
    page.locator("body[data-state=done]").wait_for()


def said_by_commands(watched: Watched, inputs: Inputs, folder: Path) -> dict[str, list[Any]]:
    """The documents of the commands that the page names, by the kind of the answer."""
    for name, data in inputs:
        (folder / name).write_bytes(data)
    said: dict[str, list[Any]] = {}
    sections = "() => [...document.querySelectorAll('section.answer')].map((each) =>"
    shown = watched.page.evaluate(
        f"{sections} [each.dataset.kind, each.querySelector('.command pre').textContent])"
    )
    for kind, commands in shown:
        for command in commands.splitlines():
            done = CliRunner().invoke(main, shlex.split(command)[1:])
            decoder, place, text = json.JSONDecoder(), 0, done.stdout.strip()
            while place < len(text):
                document, place = decoder.raw_decode(text, place)
                said.setdefault(kind, []).append(document)
                place += 1
    return said


def cells(watched: Watched, kind: str) -> list[list[str]]:
    """The texts of all table rows in the answers of a kind."""
    for more in watched.page.locator(f"section.{kind} > button.plain").all():
        more.click()
    rows: list[list[str]] = watched.page.evaluate(
        "(kind) => [...document.querySelectorAll(`section.${kind} tbody tr`)]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))",
        kind,
    )
    return rows


def texts(watched: Watched, selector: str) -> list[str]:
    found: list[str] = watched.page.locator(selector).all_text_contents()
    return found


def offset(value: int | None) -> str:
    return "" if value is None else f"0x{value:03x}"


@pytest.mark.parametrize("name", INPUTS)
def test_the_page_shows_what_the_commands_say(
    name: str, tried: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    give(tried, INPUTS[name])
    said = said_by_commands(tried, INPUTS[name], tmp_path)
    assert said
    assert cells(tried, "findings") == [
        [each["severity"], each["rule"], offset(each["offset"]), each["message"]]
        for document in said.get("findings", ())
        for result in document
        for each in result["findings"]
    ]
    assert cells(tried, "statements") == [
        [each["verdict"], each["topic"], each["text"], offset(each["offset"])]
        for document in said.get("statements", ())
        for each in document
    ]
    assert [row[:3] for row in cells(tried, "scope")] == [
        [each["device"], each["unit"] or "none", each["reason"] or ""]
        for each in said.get("scope", ())
    ]
    shown = tried.page.evaluate(
        "() => [...document.querySelectorAll('.tree [data-value]')]"
        ".map((each) => [each.dataset.name, each.dataset.value])"
    )
    tables = [each["decoded"] for each in said.get("table", ())]
    assert Counter(map(tuple, shown)) == Counter(
        leaf for each in tables for leaf in leaves(each) if leaf != ("device_scope", "[]")
    )
    groups = [group for each in said.get("groups", ()) for group in each["groups"]]
    assert texts(tried, "section.groups li > code") == [", ".join(each) for each in groups]
    check_log(tried, said.get("log", []))
    check_units(tried, said.get("capabilities", []))
    assert tried.said == []


def check_log(watched: Watched, documents: list[Any]) -> None:
    """Faults with their reasons and addresses, and the first line of each message."""
    faults = [each for document in documents for each in document["faults"]]
    assert [title.partition(":blocked")[0] for title in texts(watched, ".fault h3")] == [
        f"{each['device'] or 'unknown device'}: {each['kind']} blocked "
        + ("once" if each["count"] == 1 else f"{each['count']} times")
        for each in faults
    ]
    for card, each in zip(texts(watched, ".fault"), faults, strict=True):
        for text in (each["text"], each["stopped_at"], *each["likely"], *each["look_at"]):
            assert text is None or text in card
        for start, end in each["ranges"]:
            assert (start if start == end else f"{start}-{end}") in card
    shown = {(row[0], row[1]) for row in cells(watched, "log")}
    for message in (each for document in documents for each in document["messages"]):
        first = message["lines"][0]["text"] if message["lines"] else ""
        wanted = first + (message["meaning"] or "")
        assert any(weight == message["weight"] and wanted in text for weight, text in shown)


def check_units(watched: Watched, documents: list[Any]) -> None:
    """Every field of every unit, contradictions and notes."""
    rows = {row[0]: row[1:] for row in cells(watched, "capabilities")}
    paragraphs = texts(watched, "section.capabilities p")
    for document in documents:
        for number, unit in enumerate(document["units"]):
            for field, value in unit["fields"].items():
                assert rows[field][number] == (hex(value) if value > 9 else str(value))
            for text in (*unit["contradictions"], *unit["notes"]):
                assert any(each.endswith(text) for each in paragraphs)


def test_an_edited_table_and_sarif_are_those_of_the_commands(
    tried: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ((name, data),) = INPUTS["iasl-template-1"]
    Path(name).write_bytes(data)
    give(tried, [(name, data)])
    page = tried.page
    for edit, text in (("oem-id", "MINE"), ("drop-rmrr", "all")):
        page.locator("#edit-name").select_option(edit)
        page.locator("#edit-text").fill(text)
        page.locator("#edit button[type=submit]").click()
    with page.expect_download(timeout=PATIENCE) as saved:
        page.locator("#edited").click()
    CliRunner().invoke(main, shlex.split(f"dmar edit {name} -o out --drop-rmrr all --oem-id MINE"))
    assert Path(saved.value.path()).read_bytes() == Path("out").read_bytes() != data
    with page.expect_download(timeout=PATIENCE) as saved:
        page.locator("#sarif").click()
    sarif = CliRunner().invoke(main, ["dmar", "validate", name, "--format", "sarif"]).stdout
    assert json.loads(Path(saved.value.path()).read_text()) == json.loads(sarif)
    page.locator("#edit-name").select_option("set-flag")
    page.locator("#edit-text").fill("x")
    page.locator("#edit button[type=submit]").click()
    page.locator("#edited").click()
    status = page.get_by_role("status")
    status.filter(has_text="Not edited: 'x' is not FLAG=0|1").wait_for()


def test_the_report_is_that_of_the_command(
    tried: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2", reason="the report extra is not installed")
    monkeypatch.chdir(tmp_path)
    give(tried, INPUTS["table and log"])
    names = [name for name, _ in INPUTS["table and log"]]
    for name, data in INPUTS["table and log"]:
        Path(name).write_bytes(data)
    assert CliRunner().invoke(main, ["report", *names, "-o", "out.html"]).exit_code == 0
    with tried.page.expect_download(timeout=PATIENCE) as saved:
        tried.page.get_by_role("button", name="Report").click()
    assert Path(saved.value.path()).read_bytes() == Path("out.html").read_bytes()


def test_dropped_and_pasted_things_are_taken(tried: Watched) -> None:
    give(tried, [])
    page = tried.page
    ((name, data),) = INPUTS["qemu-1"]
    dropped = page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [name, list(data)],
    )
    page.locator("main").dispatch_event("drop", {"dataTransfer": dropped})
    page.locator("section.findings").wait_for()
    page.locator("#paste").fill("cap 0xd2008c222f0606 ecap 0xf00f5e")
    page.get_by_role("button", name="Look at it").click()
    page.locator("section.capabilities").wait_for()
    assert texts(tried, "#inputs .kind") == ["DMAR table", "capability registers"]


def test_nonsense_is_said_to_be_nonsense(tried: Watched) -> None:
    give(tried, [("letter.txt", b"good morning"), ("nothing", b"")])
    assert texts(tried, "#notes li")[1] == "nothing: empty"
    assert "neither a DMAR table" in texts(tried, "#notes li")[0]
    assert texts(tried, "#status") == ["Nothing in it that can be answered."]


def test_hostile_text_stays_text(tried: Watched) -> None:
    lines = [
        f"DMAR: [DMA Read] Request device [00:{number & 31:02x}.0] fault addr {number:x}000 {text}"
        for number, text in enumerate(HOSTILE[:40])
    ]
    listing = "\n".join(f"00:{number:02x}.0 {text}" for number, text in enumerate(HOSTILE[40:72]))
    names = [(f"{text.replace('/', '|')}.txt", b"d2008c222f0606 f00f5e") for text in HOSTILE[72:]]
    table = bytearray(INPUTS["synthetic-andd-root"][0][1])
    table[10:16] = b"<b>x<i"
    give(
        tried,
        [
            ("log", "\n".join([*lines, *(f"DMAR: {text}" for text in HOSTILE[:40])]).encode()),
            ("lspci", listing.encode()),
            ("table", bytes(table)),
            *names,
        ],
    )
    page = tried.page
    assert page.evaluate("typeof hostile") == "undefined"
    forbidden = "script:not([src]), iframe, svg, img, a[href^=javascript], style, [onclick]"
    assert page.locator("main").locator(forbidden).count() == 0
    text = page.locator("main").inner_text()
    for each in (HOSTILE[0], HOSTILE[1], HOSTILE[4], names[0][0], names[1][0]):
        assert each in text
    assert tried.said == []


def test_everybody_can_use_it(tried: Watched) -> None:
    give(tried, INPUTS["server"])
    opened = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
    tried.page.evaluate(opened)
    assert tried.faults_of_access() == []
    tried.page.emulate_media(color_scheme="dark")
    assert tried.faults_of_access("color-contrast") == []
    for width in (375, 1440):
        tried.page.set_viewport_size({"width": width, "height": 900})
        assert tried.too_wide() == []
        assert tried.page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_goes_elsewhere(tried: Watched, site: Served, tmp_path: Path) -> None:
    assert {url for url in tried.requests if not url.startswith((site.origin, "blob:"))} == set()
    with served(tmp_path) as elsewhere:
        program = f"fetch('{elsewhere.origin}/').then(() => 'sent', () => 'refused')"
        (worker,) = tried.page.workers
        assert tried.page.evaluate(program) == "refused"
        assert worker.evaluate(program) == "refused"
        assert elsewhere.requested == []
    tried.said.clear()


def test_loaded_once_it_works_without_a_network(tried: Watched, site: Served) -> None:
    tried.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    site.down = True
    try:
        tried.page.reload()
        tried.page.locator("body[data-ready]").wait_for()
        tried.page.get_by_role("button", name="A table with mistakes").click()
        tried.page.locator("section.findings tbody tr").first.wait_for()
    finally:
        site.down = False
    assert tried.said == []
