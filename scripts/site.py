"""Builds the static site into build/site; ``scripts/site`` installs what that needs.

Documentation, reference, and the *Try it* page: Pyodide's core, one archive of our own wheel and
the packages that it needs there, examples. Nothing of it is loaded from elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from html import escape
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from scripts.release import ReleaseError, build, run
from scripts.site_pages import PLACES, SitePages, navigation, page_of, relative
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine

ROOT = Path(__file__).resolve().parents[1]
SOURCE, NODE, SITE = ROOT / "docs" / "site", ROOT / "build" / "node", ROOT / "build" / "site"
REFERENCE = ROOT / "build" / "reference"
PYODIDE = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
)
"""The files of the npm package that a worker loads."""
PACKAGES, REPORT = ("construct",), ("jinja2", "markupsafe")
"""What our wheel needs in the page, beside itself; and for reports, if that is installed."""
CAPTURE = ROOT / "tests" / "captures" / "edu-faults-legacy48"
EPOCH = (1980, 1, 1, 0, 0, 0)


def engine() -> bytes:
    """One archive of the modules of our wheel and of the packages that it needs."""
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(packed, "w") as archive:
        for name, data in sorted([*_ours(build("wheel", Path(scratch))), *_packages()]):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _ours(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            yield name, archive.read(name)


def _packages() -> Iterator[tuple[str, bytes]]:
    reporting = all(find_spec(each) for each in REPORT)
    for package in (*PACKAGES, *(REPORT if reporting else ())):
        for file in metadata.files(package) or ():
            if file.suffix == ".py":
                yield str(file), file.read_binary()


def write_try_page(folder: Path, places: list[str]) -> None:
    """The page, its scripts, Pyodide, our packages and the examples; last the list of them."""
    shutil.copytree(SOURCE / "try", folder)
    page = folder / "index.html"
    before, _, rest = page.read_text().partition("<nav")
    after = rest.partition("</nav>")[2]
    page.write_text(before + navigation("try/index.html", places) + after)
    (folder / "pyodide").mkdir()
    for name in PYODIDE:
        shutil.copyfile(NODE / "node_modules" / "pyodide" / name, folder / "pyodide" / name)
    (folder / "engine.zip").write_bytes(engine())
    examples = folder / "examples"
    machine = read_machine((ROOT / "examples" / "machines" / "server.toml").read_text(), "server")
    (examples / "server-dmar.bin").write_bytes(assemble(machine).table.pack())
    shutil.copyfile(CAPTURE / "DMAR.bin", examples / "qemu-dmar.bin")
    shutil.copyfile(CAPTURE / "dmesg-iommu.txt", examples / "qemu-log.txt")
    kept = sorted(
        each for each in folder.rglob("*") if each.is_file() and each.name != "offline.js"
    )
    names = [str(each.relative_to(folder)) for each in kept]
    digest = hashlib.sha256(b"".join(map(Path.read_bytes, kept))).hexdigest()[:16]
    files = ["./", *names, "../style.css", "../icon.svg"]
    (folder / "files.js").write_text(
        f"const VERSION = {json.dumps(f'vtd-{digest}')};\nconst FILES = {json.dumps(files)};\n"
    )


def write_documentation(places: list[str]) -> None:
    """Every page of the repository, and the list of those of ``docs``, decisions last."""
    sources = run("git", "ls-files", "-co", "--exclude-standard", "*.md", cwd=ROOT).split()
    pages = SitePages(ROOT, SITE, places)
    titles = pages.write(source for source in sources if (ROOT / source).exists())
    decisions = {each for each in titles if each.startswith("docs/decisions/")}
    others = {each for each in titles if each.startswith("docs/")} - decisions
    content = "<h1>Documentation</h1>\n" + _listed(titles, others)
    content += "<h2>Decisions</h2>\n" + _listed(titles, decisions)
    pages.write_page("docs/index.html", "Documentation", content)


def _listed(titles: Mapping[str, str], sources: set[str]) -> str:
    """A list of pages by their titles."""
    items = [
        f'<li><a href="{relative("docs/index.html", page_of(source))}">{escape(title)}</a></li>\n'
        for source, title in sorted(titles.items(), key=lambda each: each[1].lower())
        if source in sources
    ]
    return f"<ul>\n{''.join(items)}</ul>\n"


def main() -> int:
    """Build it; say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the reference out")
    quick = parser.parse_args().quick
    places = [each for each in PLACES if not (quick and each.startswith("reference"))]
    try:
        shutil.rmtree(SITE, ignore_errors=True)
        SITE.mkdir(parents=True)
        for name in ("style.css", "icon.svg"):
            shutil.copyfile(SOURCE / name, SITE / name)
        write_documentation(places)
        if not quick:
            shutil.copytree(REFERENCE, SITE / "reference", ignore=shutil.ignore_patterns(".*"))
        write_try_page(SITE / "try", places)
    except (ReleaseError, OSError) as error:
        print(f"scripts/site: {error}", file=sys.stderr)
        return 2
    print(f"{(SITE / 'index.html').relative_to(ROOT)} (python -m http.server -d build/site)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
