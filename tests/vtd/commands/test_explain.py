"""vtd explain: faults in words, with the table and the PCI tree as context."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from vtd.commands.explain import explain
from vtd.dmar.description import build

LOG = """\
[    0.1] DMAR: Host address width 39
[    0.2] DMAR: [Firmware Bug]: Your BIOS is broken; DMAR reported at address 0!
[    1.0] DMAR: DRHD: handling fault status reg 2
[    1.1] DMAR: [DMA Read NO_PASID] Request device [00:14.0] fault addr 0x7a000000 [fault reason 0x06] x
[    1.2] DMAR: [DMA Read NO_PASID] Request device [00:14.0] fault addr 0x7a001008 [fault reason 0x06] x
[    1.3] DMAR: [DMA Write NO_PASID] Request device [02:00.0] fault addr 0x0 [fault reason 0x02] x
[    1.4] DMAR: [INTR-REMAP] Request device [f0:1f.0] fault index 0x10 [fault reason 0x26] x
[    1.5] DMAR: [DMA Write PASID 0x3] Request device [03:00.0] fault addr 0x1000 [fault reason 0xee] x
[    1.6] DMAR: something entirely new
"""  # noqa: E501
TABLE = build(
    """
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
[[structure]]
type = "RMRR"
base = 0x7a000000
limit = 0x7a00ffff
[[structure.scope]]
type = "pci_endpoint"
path = ["14.0"]
"""
)
LSPCI = """\
00:14.0 USB controller [0c03]: xHCI
00:1c.0 PCI bridge [0604]: Root Port
\tBus: primary=00, secondary=01, subordinate=02, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
01:00.0 PCI bridge [0604]: Bridge to PCI
\tBus: primary=01, secondary=02, subordinate=02, sec-latency=32
\tCapabilities: [70] Express (v1) PCI-Express to PCI/PCI-X Bridge, MSI 00
02:04.0 Multimedia audio controller [0401]: Sound
"""

app = typer.Typer()
app.command()(explain)


def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exit_code == code, result.output
    return result.stdout


def test_faults_are_folded_and_put_into_words() -> None:
    output = run(stdin=LOG, code=1)
    assert "0000:00:14.0: DMA read blocked 2 times (lines 4-5)" in output
    assert "address: 0x7a000000-0x7a001fff" in output
    assert "reason: 0x06 " in output
    assert "address 0: often a null pointer" in output
    assert "DMA write with PASID 0x3 blocked once" in output
    assert "reason: 0xee, not assigned by the specification" in output
    assert "index: 0x10" in output
    assert "unknown  line 9: DMAR: something entirely new" in output


def test_problems_come_before_what_is_normal() -> None:
    output = run(stdin=LOG, code=1)
    assert output.index("problem  line 2") < output.index("normal   line 1")


def test_table_and_pci_tree_give_the_context(tmp_path: Path) -> None:
    table, lspci, log = tmp_path / "DMAR", tmp_path / "lspci", tmp_path / "log"
    table.write_bytes(TABLE.pack())
    lspci.write_text(LSPCI)
    log.write_text(LOG)
    output = run(str(log), "--dmar", str(table), "--lspci", str(lspci), code=1)
    assert "0000:00:14.0 (USB controller [0c03]: xHCI): DMA read" in output
    assert "unit: 0xfed90000, left over, INCLUDE_PCI_ALL" in output
    assert "region: inside the RMRR 0x7a000000-0x7a00ffff of this device" in output
    assert "alias: requests of 0000:02:04.0 carry this id" in output
    assert "alias: no such function" in output


def test_json_holds_the_faults_and_the_other_lines(tmp_path: Path) -> None:
    (tmp_path / "DMAR").write_bytes(TABLE.pack())
    arguments = ["--format", "json", "--dmar", str(tmp_path / "DMAR")]
    answer = json.loads(run(*arguments, stdin=LOG, code=1))
    fault = answer["faults"][0]
    assert (fault["device"], fault["kind"]) == ("0000:00:14.0", "DMA read")
    assert (fault["reason"], fault["count"], fault["lines"]) == (6, 2, [4, 5])
    assert fault["ranges"] == [["0x7a000000", "0x7a001fff"]]
    assert fault["unit"] == "0xfed90000"
    assert fault["likely"]
    assert answer["faults"][-1]["text"] is None
    weights = [each["weight"] for each in answer["messages"]]
    assert weights[0] == "problem"
    assert weights[-1] == "unknown"
    assert answer["messages"][-1]["lines"][0]["line"] == 9
    assert json.loads(run("--format", "json", stdin="x")) == {"faults": [], "messages": []}


def test_many_ranges_are_counted_and_like_lines_told_once() -> None:
    line = "DMAR: [DMA Read] Request device [00:02.0] fault addr {:x} [fault reason 06] x\n"
    log = "".join(line.format(0x10000 * number) for number in range(1, 12))
    log += "dmar_fault: 8 callbacks suppressed\n" * 3
    output = run(stdin=log, code=1)
    assert "blocked 11 times (lines 1-11)" in output
    assert "0x80000-0x80fff and 3 more ranges" in output
    assert "callbacks suppressed (3 lines)" in output


def test_a_device_under_no_unit_is_told(tmp_path: Path) -> None:
    (tmp_path / "DMAR").write_bytes(TABLE.pack())
    log = LOG.replace("[00:14.0]", "[0001:00:14.0]")
    output = run("-", "--dmar", str(tmp_path / "DMAR"), stdin=log, code=1)
    assert "unit: the table puts this device under no unit" in output


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", "empty"),
        (b"\n \0", "empty"),
        (TABLE.pack(), "not the text of a kernel log"),
        (bytes(range(256)) * 9, "not the text of a kernel log"),
    ],
)
def test_what_is_no_log_is_unusable(tmp_path: Path, content: bytes, why: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    result = CliRunner().invoke(app, [str(log)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"vtd: {log}: {why}\n"


def test_zeros_that_a_crash_left_and_colours_are_no_reason_to_refuse() -> None:
    coloured = LOG.replace("DMAR:", "\x1b[33mDMAR:\x1b[0m") + "\0" * 9000 + "\n"
    assert "DMA read blocked 2 times" in run(stdin=coloured, code=1)


def test_a_log_without_trouble_ends_with_0() -> None:
    assert run(stdin="[    0.1] DMAR: IOMMU enabled\n").startswith("normal   line 1")
    assert run(stdin="nothing\n") == "no line about DMAR\n"
    run("/absent/log", code=2)
