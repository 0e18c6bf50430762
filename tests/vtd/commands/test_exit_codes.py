"""The table of exit codes in the documentation, walked cell by cell."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.dmar_corpus import malformed_tables
from tests.support.reference_data import capture_folders, vector_files
from tests.vtd.commands.test_dmar_edit import TABLE
from tests.vtd.commands.test_fuzz_audit import CAPTURE, ROOT, STALE_TRACE
from tests.vtd.dmar.listing.test_lspci import VERBOSE
from tests.vtd.plots.result_rows import result_row
from vtd.cli import COMMANDS, main
from vtd.commands.conformance import app as conformance
from vtd.commands.dmar import app
from vtd.commands.guest import app as guest
from vtd.commands.live import app as live
from vtd.commands.machine import app as machine
from vtd.commands.passthrough import app as passthrough
from vtd.commands.trace import app as trace
from vtd.guest.itanium.vpd import VPD_SIZE
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import VMX_PROFILES
from vtd.guest.x86.vmcs import pack

PAGE = ROOT / "docs" / "exit-codes.md"
SOUND = str(CAPTURE)
SHADOWED = str(next(each for each in capture_folders() if each.name == "legacy48-strict"))
VECTOR = next(each for each in vector_files() if "msi" in each.name or "ir_basic" in each.name)
BROKEN = next(each for each in malformed_tables() if "m060" in each.id).data
REFUSED = b"DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR requirement.\n"
PROBED = ROOT / "tests" / "vtd" / "conformance" / "qemu-probe.json"
FUZZ = "fuzz --jobs 1 --property"

ENTERED = base_state(VMX_PROFILES["everything"])

MACHINE = b"""
[[unit]]
profile = "qemu"
base = 0xfed90000
include_all = true
io_apic = [{ id = 0, at = "00:1f.7" }]
[[function]]
at = "00:02.0"
"""
PLAN = (ROOT / "examples" / "plans" / "server.toml").read_bytes()
REFUSAL = (
    MACHINE
    + b"""
[[memory]]
start = 0
size = "16 MiB"
[[region]]
start = 0
size = 0x1000
devices = ["00:02.0"]
[[guest]]
name = "a"
memory = [{ start = 0, size = 0x1000 }]
[[assign]]
guest = "a"
devices = ["00:02.0"]
"""
)
HARM = (
    REFUSAL
    + b"""
[[guest]]
name = "b"
memory = [{ start = 0x1000, size = 0x1000 }]
[[function]]
at = "old/00.0"
[[function]]
at = "old/01.0"
[[bridge]]
name = "old"
at = "00:1e.0"
kind = "pcie_to_pci"
[[assign]]
guest = "a"
devices = ["old/00.0"]
[[assign]]
guest = "b"
devices = ["old/01.0"]
"""
)

Files = dict[str, bytes]
FILES: Files = {
    "table": TABLE,
    "broken": BROKEN,
    "lspci": VERBOSE.encode(),
    "usb": b"00:02.0 VGA compatible controller [0300]: Acme\n",
    "trace": STALE_TRACE.encode(),
    "fault": REFUSED,
    "quiet": b"DMAR: IOMMU enabled\n",
    "empty": b"",
    "vmcs": pack(ENTERED),
    "torn": pack(ENTERED.replace({"guest_rflags": 0})),
    "enters": b'{"profile": "everything", "fields": {}}',
    "refused": b'{"profile": "everything", "fields": {"0x6820": "0x0"}}',
    "blank": bytes(4096),
    "zeros": bytes(VPD_SIZE),
    "ones": bytes(VPD_SIZE - 1) + b"\1",
    "spec": b'[[structure]]\ntype = "DRHD"\nregister_base = 0x1000\n',
    "machine": MACHINE,
    "plan": PLAN,
    "refusal": REFUSAL,
    "harm": HARM,
    "rows": b'{"address": 4096, "length": 64}',
    "workload": b'rows = 9\n[[stream]]\nkind = "nic"',
    "results": json.dumps({"results": [result_row(ways=ways) for ways in (1, 2)]}).encode(),
    "doubtful": MACHINE + b'[[region]]\nstart = 8\nsize = 8\ndevices = ["00:02.0"]\n',
}

SITUATIONS: dict[tuple[str, int], str] = {
    ("demo", 0): "demo",
    ("demo", 2): "demo --colour",
    ("replay", 0): f"replay {VECTOR}",
    ("replay", 1): "replay altered.json",
    ("replay", 2): "replay absent",
    ("mappings", 0): f"mappings {SOUND}",
    ("mappings", 2): "mappings absent",
    ("walk", 0): f"walk {SHADOWED} 0x1000 --device 00:02.0",
    ("explore", 2): "explore absent",
    ("walk", 2): "walk absent 0x1000 --device 00:02.0",
    ("irte", 0): f"irte {SOUND}",
    ("irte", 2): "irte absent",
    ("msi", 0): "msi 0xfee00000 0x30",
    ("msi", 2): "msi 0xfee00000 x",
    ("caps", 0): "caps d2008c40660462 f050da",
    ("caps", 1): "caps d2008c40660462 f05018",
    ("caps", 2): "caps d2008c40660462",
    ("dmar validate", 0): "dmar validate table",
    ("dmar validate", 1): "dmar validate broken table",
    ("dmar validate", 2): "dmar validate empty table",
    ("dmar rules", 0): "dmar rules",
    ("dmar rules", 2): "dmar rules --colour",
    ("dmar show", 0): "dmar show broken",
    ("dmar show", 2): "dmar show empty",
    ("dmar build", 0): "dmar build spec -o out.bin",
    ("dmar build", 2): "dmar build fault -o out.bin",
    ("dmar export", 0): "dmar export table",
    ("dmar export", 2): "dmar export empty",
    ("dmar edit", 0): "dmar edit broken -o out.bin",
    ("dmar edit", 2): "dmar edit table -o out.bin --drop-rmrr 1000",
    ("dmar diff", 0): "dmar diff table table",
    ("dmar diff", 1): "dmar diff table broken",
    ("dmar diff", 2): "dmar diff table empty",
    ("dmar scope", 0): "dmar scope table 00:02.0",
    ("dmar scope", 1): "dmar scope table 0001:00:02.0",
    ("dmar scope", 2): "dmar scope table 2",
    ("dmar rmrr", 0): "dmar rmrr table --lspci usb",
    ("dmar rmrr", 1): "dmar rmrr table",
    ("dmar rmrr", 2): "dmar rmrr empty",
    ("dmar audit", 0): "dmar audit guarded.bin",
    ("dmar audit", 1): "dmar audit broken",
    ("dmar audit", 2): "dmar audit empty",
    ("machine check", 0): "machine check machine",
    ("machine check", 1): "machine check doubtful",
    ("machine check", 2): "machine check spec",
    ("machine describe", 0): "machine describe lspci",
    ("machine describe", 2): "machine describe empty",
    ("machine show", 0): "machine show doubtful",
    ("machine show", 2): "machine show spec",
    ("machine table", 0): "machine table machine -o out.bin",
    ("machine table", 2): "machine table spec -o out.bin",
    ("passthrough plan", 0): "passthrough plan plan",
    ("passthrough plan", 1): "passthrough plan refusal",
    ("passthrough plan", 2): "passthrough plan harm",
    ("passthrough run", 0): "passthrough run plan",
    ("passthrough run", 1): "passthrough run harm --force",
    ("passthrough run", 2): "passthrough run refusal",
    ("passthrough drill", 0): "passthrough drill flr",
    ("passthrough drill", 2): "passthrough drill fire",
    ("groups", 0): "groups lspci",
    ("groups", 2): "groups empty",
    ("collect", 0): "collect out.tar.gz --root .",
    ("collect", 2): "collect absent/out.tar.gz --root .",
    ("explain", 0): "explain quiet",
    ("explain", 1): "explain fault",
    ("explain", 2): "explain empty",
    ("guest vmcs", 0): "guest vmcs vmcs",
    ("guest vmcs", 1): "guest vmcs torn",
    ("guest vmcs", 2): "guest vmcs empty",
    ("guest check", 0): "guest check enters",
    ("guest check", 1): "guest check refused",
    ("guest check", 2): "guest check empty",
    ("guest ept", 0): "guest ept blank --base 0 --eptp 0 0",
    ("guest ept", 2): "guest ept empty --base 0 --eptp 0 0",
    ("guest vpd", 0): "guest vpd zeros",
    ("guest vpd", 1): "guest vpd ones",
    ("guest vpd", 2): "guest vpd empty",
    ("fuzz", 0): f"{FUZZ} interrupts --count 1",
    ("fuzz", 2): f"{FUZZ} nothing --count 1",
    ("audit", 0): f"audit {SOUND}",
    ("audit", 1): "audit trace",
    ("audit", 2): "audit empty",
    ("conformance probe", 2): "conformance probe nothing -o probe.json",
    ("conformance build", 0): f"conformance build --for {PROBED} -o kit.img --cases 1",
    ("conformance build", 2): "conformance build --for empty -o kit.img",
    ("conformance run", 2): "conformance run qemu empty -o results.jsonl",
    ("conformance compare", 2): "conformance compare empty",
    ("live boot", 2): "live boot absent",
    ("live matrix", 2): "live matrix nothing",
    ("drive", 0): "drive own --count 1",
    ("drive", 1): f"drive python:{ROOT}/examples/drivers/small_mask.py:SmallMask",
    ("drive", 2): "drive nothing",
    ("trace convert", 0): "trace convert rows -o out.jsonl",
    ("trace convert", 2): "trace convert empty -o out.jsonl",
    ("trace generate", 0): "trace generate workload -o out.parquet",
    ("trace generate", 2): "trace generate spec -o out.parquet",
    ("trace info", 0): "trace info rows",
    ("trace info", 2): "trace info empty",
    ("trace head", 0): "trace head rows",
    ("trace head", 2): "trace head empty",
    ("trace explain", 0): "trace explain rows 0",
    ("trace explain", 2): "trace explain rows 0 --page-size 8K",
    ("plot", 0): "plot results -o out.svg",
    ("plot", 2): "plot empty -o out.svg",
    ("sweep", 0): "sweep rows --jobs 1",
    ("sweep", 2): "sweep empty --jobs 1",
    ("report", 0): "report broken lspci fault -o out.html",
    ("report", 2): "report empty -o out.html",
    ("lint", 0): f"lint {SOUND}",
    ("lint", 2): "lint empty",
    ("live serve", 2): "live serve spec",
}
"""A command line for every cell of the table that says something."""
ELSEWHERE = {
    ("passthrough drill", 1): (
        "test_passthrough", "test_a_drill_whose_guard_does_nothing_is_found"
    ),
    ("explore", 0): ("test_explore", "test_in_a_terminal_it_is_browsed_and_left"),
    ("fuzz", 1): ("test_fuzz_audit", "test_a_failure_is_saved_and_replays"),
    ("conformance probe", 0): ("test_conformance", "test_a_good_unit_passes"),
    ("conformance run", 0): ("test_conformance", "test_a_good_unit_passes"),
    ("conformance compare", 0): ("test_conformance", "test_a_good_unit_passes"),
    ("conformance compare", 1): (
        "test_conformance", "test_a_broken_unit_is_found_and_the_failure_opens_in_replay"
    ),
    ("live boot", 0): ("test_live_guests", "test_a_boot_that_goes_well_is_told"),
    ("live boot", 1): ("test_live_guests", "test_a_boot_that_goes_wrong_is_told"),
    ("live matrix", 0): ("test_live_guests", "test_cells_are_booted_once"),
    ("live matrix", 1): ("test_live_guests", "test_a_cell_that_fails_is_told"),
    ("live fetch", 0): ("test_live_guests", "test_what_is_there_is_told"),
    ("live fetch", 1): ("test_live_guests", "test_what_is_missing_is_told"),
    ("live fetch", 2): ("test_live_guests", "test_what_can_not_be_had_is_told"),
    ("lint", 1): ("test_lint", "test_a_log_is_linted_by_lines_in_every_form"),
    ("live serve", 0): ("test_live", "test_the_sockets_are_private_and_the_arguments_name_them"),
    ("live serve", 1): (
        "test_live", "test_a_guest_that_forgets_an_invalidation_is_found_and_recorded"
    ),
}  # fmt: skip
"""Cells that another test shows, as they take a buggy target, or a client."""

GROUPS = {
    "conformance": conformance,
    "dmar": app,
    "guest": guest,
    "live": live,
    "machine": machine,
    "passthrough": passthrough,
    "trace": trace,
}
"""Commands that have commands of their own."""


OF_TRACES = {"trace": "pyarrow", "sweep": "numba", "plot": "altair"}
"""Commands that need an extra, and a package of it."""


def cells() -> set[tuple[str, int]]:
    """Command and code of every cell of the table that is not empty."""
    found = set()
    for line in PAGE.read_text().splitlines():
        if match := re.fullmatch(r"\| `([a-z ]+)` \|(.*)\|", line):
            for code, text in enumerate(match[2].split("|")):
                if text.strip():
                    found.add((match[1], code))
    return found


def test_the_table_has_every_command() -> None:
    listed = {command for command, _ in cells()}
    inner = {
        f"{group} {each.name or each.callback.__name__}"
        for group, commands in GROUPS.items()
        for each in commands.registered_commands
        if each.callback is not None
    }
    assert listed == (set(COMMANDS) - set(GROUPS)) | inner
    assert all((command, code) in cells() for command in listed for code in (0, 2))


def test_every_cell_has_a_situation() -> None:
    assert set(SITUATIONS) | set(ELSEWHERE) == cells()
    for module, test in ELSEWHERE.values():
        assert f"def {test}(" in (Path(__file__).parent / f"{module}.py").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    run = invoke("dmar", "edit", "table", "-o", "guarded.bin", "--drop-rmrr", "all",
                 "--set-flag", "dma_ctrl_platform_opt_in=1")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run() == 0
    altered(tmp_path / "altered.json")
    return tmp_path


def invoke(*arguments: str) -> Callable[[], int]:
    return lambda: CliRunner().invoke(main, list(arguments)).exit_code


def altered(path: Path) -> None:
    """A scenario whose last outcome can't be."""
    data = VECTOR.read_bytes()
    scenario = json.loads(gzip.decompress(data) if VECTOR.suffix == ".gz" else data)
    for step in reversed(scenario["steps"]):
        if "expect" in step:
            step["expect"] = {"delivered": {"vector": 255}}
            break
    path.write_text(json.dumps(scenario))


@pytest.mark.parametrize(
    ("cell", "line"), SITUATIONS.items(), ids=[f"{name} {code}" for name, code in SITUATIONS]
)
def test_a_cell_holds(folder: Path, cell: tuple[str, int], line: str) -> None:
    if cell[0].split()[0] in OF_TRACES:
        package = OF_TRACES[cell[0].split()[0]]
        pytest.importorskip(package, reason="needs the batch or plots extra")
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == cell[1], result.output
    if cell[1] == 2:
        assert result.stderr.strip()
