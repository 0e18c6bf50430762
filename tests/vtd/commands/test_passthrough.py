"""``vtd passthrough``: what a designer reads, on described and on real machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vtd.cli import main
from vtd.host.drills.all_drills import DRILLS
from vtd.host.drills.drill import Check, Drill

PLANS = Path(__file__).parents[3] / "examples" / "plans"
MACHINES = PLANS.parent / "machines"
LISTING = """\
00:02.0 VGA compatible controller [0300]: Acme [8086:9bc5]
\tCapabilities: [70] Express (v2) Root Complex Integrated Endpoint, MSI 00
00:1c.0 PCI bridge [0604]: Acme [8086:a33c]
\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
01:00.0 Ethernet controller [0200]: Acme [8086:1533]
\tCapabilities: [40] Express (v2) Endpoint, MSI 00
"""
PLAN = """
[[guest]]
name = "a"
memory = [{ start = 0, size = "1 GiB" }]
[[assign]]
guest = "a"
devices = ["01:00.0"]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["passthrough", *arguments])


@pytest.fixture
def table(tmp_path: Path) -> str:
    """The table of a machine whose listing is above."""
    text = (MACHINES / "server.toml").read_text()
    (tmp_path / "machine.toml").write_text(text)
    file = tmp_path / "dmar.bin"
    made = CliRunner().invoke(
        main, ["machine", "table", str(tmp_path / "machine.toml"), "-o", str(file)]
    )
    assert made.exit_code == 0, made.output
    return str(file)


def test_a_refusal_says_why_what_hypervisors_say_and_what_would_work(tmp_path: Path) -> None:
    text = (PLANS / "desktop.toml").read_text().partition("[[work]]")[0]
    file = tmp_path / "plan.toml"
    file.write_text(text.replace('["card", "card_audio"]', '["graphics", "usb"]'))
    result = run("plan", str(file))
    assert result.exit_code == 1
    assert "refused: graphics: needs the reserved region 0x3b00000-0x3bfffff" in result.stdout
    assert "Linux VFIO: refused, unless the device is a USB controller" in result.stdout
    assert 'graphics, usb: policy rmrr = "relax"' in result.stdout


def test_contradictions_are_all_named_with_their_line(tmp_path: Path) -> None:
    text = (PLANS / "server.toml").read_text().partition("[[work]]")[0]
    file = tmp_path / "plan.toml"
    file.write_text(text.replace('["nic.vf0"]', '["disk", "nothing", "root"]'))
    result = run("plan", str(file))
    assert result.exit_code == 2
    line = 1 + text.splitlines().index("[[assign]]")
    second = 1 + text.splitlines().index("[[assign]]", line)
    told = result.stderr.splitlines()
    assert f"vtd: {file}:{line}: nothing: there is no nothing" in told
    assert f"vtd: {file}:{line}: root: 0000:00:1c.0 is a bridge: it stays with the host" in told
    assert f"vtd: {file}:{second}: disk: 0000:04:00.0 is given to web already" in told


def test_a_plan_and_a_machine_may_have_files_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.replace("1 GiB", "1 MiB").replace("01:00.0", "disk"))
    assert run("plan", str(file)).exit_code == 2
    result = run("run", str(file), "--machine", str(MACHINES / "server.toml"))
    assert result.exit_code == 0, result.output
    assert "disk of a: reaches its guest's memory and nothing else" in result.stdout


def test_a_real_machine_is_judged_by_what_is_known_of_it(tmp_path: Path, table: str) -> None:
    plan, listing = tmp_path / "plan.toml", tmp_path / "lspci"
    plan.write_text(PLAN)
    listing.write_text(LISTING)
    arguments = ["plan", str(plan), "--dmar", table, "--lspci", str(listing), "--format", "json"]
    result = run(*arguments)
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["undecided"]
    found = [(each["kind"], each["rule"], each["subject"]) for each in document["verdicts"]]
    assert found == [("unknown", "HOST-U01", "01:00.0")]
    registers = ["--registers", "fed92000:80d2008c222f0606:f00f4a:10"]
    known = run(*arguments, *registers)
    assert known.exit_code == 0, known.stdout
    assert json.loads(known.stdout)["costs"][0]["leaves"] == 512


def test_features_of_real_devices_are_unknown(tmp_path: Path, table: str) -> None:
    plan, listing = tmp_path / "plan.toml", tmp_path / "lspci"
    plan.write_text(PLAN + "policy = { ats = true }\n")
    listing.write_text(LISTING)
    result = run(
        "plan", str(plan), "--dmar", table, "--lspci", str(listing),
        "--registers", "fed92000:80d2008c222f0606:f00f4e:10",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "unknown: 01:00.0: whether it has ats is not known" in result.stdout


def test_the_shape_of_the_iotlb_decides_how_often_tables_are_read(tmp_path: Path) -> None:
    text = (
        (PLANS / "server.toml")
        .read_text()
        .replace('interrupts = "posted"', 'interrupts = "posted"\npage_size = "4K"')
    )
    file = tmp_path / "plan.toml"
    file.write_text(text)
    reads = []
    for shape in (["--iotlb", "4x4"], ["--iotlb", "64x8"], []):
        result = run("run", str(file), *shape, "--format", "json")
        assert result.exit_code == 0, result.output
        disk = json.loads(result.stdout)["devices"][2]
        reads.append(disk["work"]["reads"])
    assert reads == sorted(reads, reverse=True)
    assert reads[0] > reads[1]
    assert run("run", str(file), "--iotlb", "four").exit_code == 2


def test_a_drill_whose_guard_does_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(guarded: bool) -> Iterator[Check]:
        yield Check("always", True)

    monkeypatch.setitem(DRILLS, "idle", Drill("idle", "nothing happens", "none", "-", play))
    assert run("drill", "idle").exit_code == 1
    (row,) = json.loads(run("drill", "idle", "--format", "json").stdout)
    assert (row["green"], row["red_without_guard"]) == (True, False)
    assert "without it: holds: always" in run("drill", "idle").stdout
