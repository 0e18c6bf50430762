"""What stands in a file or in its name is text in a report: a hundred strings that want more."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="needs the report extra")

from tests.vtd.commands.test_dmar_edit import TABLE
from tests.vtd.report.pages import Element, parsed, written
from vtd.dmar.table import Table
from vtd.pictures.markup import visible

SCRIPTS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "\"><b onmouseover='alert(1)'>",
    "' onfocus=alert(1) autofocus x='",
    "javascript:alert(1)",
    "</style><style>*{display:none}</style>",
    "]]><script>alert(1)</script><![CDATA[",
    "--><script>alert(1)</script><!--",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;script&gt;&#60;script&#62;",
    "<meta http-equiv=refresh content='0;url=//x.example'>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "</title></text></svg><script>alert(1)</script>",
    "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>&y;",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "\u202e<script>\u2066alert(1)\x1b[31m",
    "\x7f\x01<object data=x>",
    "<math><mtext></table><mglyph><style><img src=x onerror=alert(1)>",
)
WRAPPINGS = ("{}", "a {} b", "<{}", "{}\\", "'\"{}")
HOSTILE = [wrap.format(text) for wrap, text in itertools.product(WRAPPINGS, SCRIPTS)]


def listing(name: str) -> str:
    return (
        f"00:01.0 Ethernet controller [0200]: {name} [8086:1521]\n"
        "\tStatus: Cap+ 66MHz-\n\tCapabilities: [a0] Express (v2) Endpoint, MSI 00\n"
    )


def log(text: str) -> str:
    return (
        f"DMAR: IOMMU enabled {text}\n"
        f"DMAR: nobody knows this: {text}\n"
        "DMAR: [DMA Read NO_PASID] Request device [00:01.0] fault addr 0x1000 "
        f"[fault reason 0x06] {text}\n"
    )


def table(text: str) -> bytes:
    """A table whose OEM id, and the name of an ACPI device in it, are such a text."""
    name = text.encode("utf-8", "replace")[:200]
    andd = (4).to_bytes(2, "little") + (8 + len(name)).to_bytes(2, "little") + bytes(4) + name
    data = bytearray(TABLE)
    data[10:24] = name[:14].ljust(14)
    length = int.from_bytes(data[4:8], "little")
    data[length:] = andd
    data[4:8] = len(data).to_bytes(4, "little")
    return Table.parse(bytes(data)).sealed().pack()


def plan(text: str) -> str:
    quoted = text.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\")
    quoted = quoted.replace('"', '\\"').replace("\x7f", "").replace("\x01", "").replace("\x1b", "")
    return (
        '[[unit]]\nprofile = "qemu"\nbase = 0xfed90000\ninclude_all = true\n'
        f'[[function]]\nat = "00:02.0"\nname = "nic"\n'
        '[[memory]]\nstart = 0\nsize = "16 MiB"\n'
        f'[[guest]]\nname = "{quoted}"\nmemory = [{{ start = 0, size = 0x1000 }}]\n'
        f'[[assign]]\nguest = "{quoted}"\ndevices = ["nic", "no {quoted}"]\n'
    )


def shape(page: Element) -> list[tuple[str, tuple[str, ...]]]:
    """Every element with the names of its attributes, in order."""
    found = []
    for each in page.content:
        if isinstance(each, Element):
            found.append((each.name, tuple(sorted(each.attributes))))
            found += shape(each)
    return found


def elements(page: Element) -> set[tuple[str, tuple[str, ...]]]:
    return set(shape(page))


def given_files(folder: Path, text: str) -> list[str]:
    """Files with a text in all that they hold, and in their names as far as a name may have it."""
    name = text.replace("/", "_").replace("\0", "")[:80]
    files = {
        f"lspci {name}": listing(text).encode("utf-8", "replace"),
        f"log {name}": log(text).encode("utf-8", "replace"),
        f"DMAR {name}": table(text),
    }
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return [str(folder / file) for file in files]


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, tuple[str, ...]]]:
    """The elements of a report whose texts are harmless."""
    folder = tmp_path_factory.mktemp("harmless")
    return elements(parsed(written(folder, *given_files(folder, "harmless"))))


def test_there_are_a_hundred() -> None:
    assert len(set(HOSTILE)) == 100


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_it_appears_as_text_only(
    number: int, tmp_path: Path, harmless: set[tuple[str, tuple[str, ...]]]
) -> None:
    text = HOSTILE[number]
    page = parsed(written(tmp_path, *given_files(tmp_path, text)))
    found = shape(page)
    assert set(found) <= harmless
    assert not any(name.startswith("on") for _, names in found for name in names)
    scripts = [each for each in page.all("script") if "type" not in each.attributes]
    assert len(scripts) == 1
    name = text.replace("/", "_")[:80]
    assert " ".join(visible(f"log {name}").split()) in page.all("main")[0].text


@pytest.mark.parametrize("number", range(0, len(HOSTILE), 7))
def test_so_it_is_with_plans(number: int, tmp_path: Path) -> None:
    pages = []
    for text in (HOSTILE[number], "harmless"):
        (tmp_path / "plan.toml").write_text(plan(text))
        pages.append(elements(parsed(written(tmp_path, str(tmp_path / "plan.toml")))))
    assert pages[0] <= pages[1]
