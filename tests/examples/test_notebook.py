"""The example notebook runs, and shows what is stored in it."""

import json
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from scripts.notebook import NOTEBOOK, ROOT, executed, outputs
from tests.support.world import Mode, World
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.rules.rule import Finding
from vtd.inspection.isolation_groups import isolation_groups
from vtd.inspection.request_explanation import explain_request
from vtd.ruling import Findings
from vtd.severity import Severity

HOSTILE = "<script>alert(1)</script>"


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    return found


def shown(form: str) -> list[str]:
    return [
        "".join(each["data"][form])
        for found in outputs(stored(), ROOT)
        for each in found
        if form in each["data"]
    ]


def test_the_stored_outputs_are_those_of_now() -> None:
    assert executed(stored()) == stored(), "python -m scripts.notebook writes them anew"


def test_it_is_a_notebook_of_the_format() -> None:
    notebook = stored()
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len(set(ids))
    assert {cell["cell_type"] for cell in notebook["cells"]} == {"code", "markdown"}


def test_walk_table_topologies_findings_and_groups_show_themselves() -> None:
    pictures = [ElementTree.fromstring(each) for each in shown("image/svg+xml")]
    titles = [each[0].text or "" for each in pictures]
    assert [title.split()[0] for title in titles] == ["DMAR", "7", "00:01.0", "2"]
    walk = " ".join(pictures[2].itertext())
    assert "blocked: fault 06h" in walk
    tables = shown("text/html")
    assert "DMAR-U02" in tables[0]
    assert "Isolation groups" in tables[1]
    for each in tables:
        HTMLParser().feed(each)


def test_what_files_say_is_text_in_them() -> None:
    tree = parse_pci_tree(
        f"00:01.0 Ethernet controller [0200]: {HOSTILE} [8086:1521]\n"
        "\tCapabilities: [a0] Express (v2) Endpoint, MSI 00\n"
    )
    found = Findings([Finding(0, "DMAR-H01", Severity.ERROR, HOSTILE, 4)])
    for text in (tree._repr_svg_(), found._repr_html_(), isolation_groups(tree)._repr_html_()):
        assert HOSTILE not in text
    assert "&lt;script&gt;" in found._repr_html_()


def test_a_nested_walk_shows_itself() -> None:
    world = World(Mode.NESTED)
    explained = explain_request(world.start().unit.remapping, world.request)
    assert ElementTree.fromstring(explained._repr_svg_()) is not None
