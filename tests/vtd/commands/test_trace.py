"""``vtd trace`` as somebody types it: from a log to rows, and the one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("pyarrow", reason="traces need the batch extra")

from tests.vtd.traces.test_reading import PERF, QEMU
from vtd.cli import main

ROOT = Path(__file__).parents[3]


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> str:
    result = CliRunner().invoke(main, ["trace", *arguments], input=stdin)
    assert result.exit_code == code, result.output
    if code:
        assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr if code else result.stdout


def test_a_log_becomes_a_trace_that_is_looked_at(tmp_path: Path) -> None:
    log, made = tmp_path / "q.log", tmp_path / "q.parquet"
    log.write_text(QEMU)
    assert run("convert", str(log), "-o", str(made)).startswith(f"{made}: 4 rows, ")
    counts = json.loads(run("info", str(made), "--format", "json"))
    assert counts["kinds"] == {"dma": 3, "invalidate": 1, "map": 0, "unmap": 0, "marker": 0}
    assert counts["sources"] == ["0000:00:02.0", "0000:00:03.0"]
    assert (counts["lowest"], counts["highest"]) == ("0x5000", "0x9000")
    rows = [json.loads(line) for line in run("head", str(made), "--format", "jsonl").splitlines()]
    assert [row["address"] for row in rows] == ["0x5000", "0x9000", "0x5000", "0x6000"]
    again = tmp_path / "q.jsonl"
    run("convert", str(made), "-o", str(again))
    assert run("head", str(again)) == run("head", str(made))


def test_a_log_may_come_from_a_pipe(tmp_path: Path) -> None:
    made = tmp_path / "p.parquet"
    run("convert", "-", "-o", str(made), "--source", "00:1f.2", stdin=PERF)
    assert "0000:00:1f.2" in run("info", str(made))


def test_a_workload_becomes_a_trace(tmp_path: Path) -> None:
    workload, made = tmp_path / "w.toml", tmp_path / "w.parquet"
    workload.write_text('[[stream]]\nkind = "nic"\nfunctions = 3\n')
    run("generate", str(workload), "-o", str(made), "--rows", "5000")
    counts = json.loads(run("info", str(made), "--format", "json"))
    assert (counts["rows"], len(counts["sources"])) == (5000, 3)


def test_what_is_wrong_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    bad, made = tmp_path / "bad.jsonl", tmp_path / "out.parquet"
    bad.write_text('{"time": 5, "address": 1}\n{"time": 4, "address": 2}\n')
    said = run("convert", str(bad), "-o", str(made), code=2)
    assert said == f"vtd: {bad}: row 1, column time: 4 is less than 5, the row before\n"
    assert list(tmp_path.iterdir()) == [bad]
    assert "No such file" in run("info", str(tmp_path / "absent"), code=2)
    absent = tmp_path / "absent" / "out.parquet"
    assert run("convert", str(bad), "--sort", "-o", str(absent), code=2).startswith(
        f"vtd: {absent}: "
    )


def test_a_trace_of_another_machine_is_named(tmp_path: Path) -> None:
    log = tmp_path / "t.csv"
    log.write_text("time,source,address,length\n1,00:00.0,0,4\n2,77:01.0,0,4\n")
    machine = str(ROOT / "examples" / "machines" / "server.toml")
    said = run("info", str(log), "--machine", machine, code=2)
    assert "column source_id: " in said
    assert "is no function of the machine" in said


def test_one_request_is_explained(tmp_path: Path) -> None:
    log = tmp_path / "t.csv"
    pages = (1, 2, 3, 1, 1)
    lines = [f"{time},00:02.0,{page << 12},64" for time, page in enumerate(pages)]
    log.write_text("\n".join(["time,source,address,length", *lines]) + "\n")
    said = run("explain", str(log), "3", "--iotlb", "sets=2", "ways=1").splitlines()
    others = "2 other pages, 1 of them in its set of 1 way"
    assert said[0] == f"row 3, 3 ns: miss: row 0 used this page, then {others}"
    assert sum(" SS-P" in line for line in said) == 4
    told = json.loads(run("explain", str(log), "4", "--format", "json"))
    assert (told["row"], told["hit"], told["reads"], told["last_use"]) == (4, True, 0, 3)
    assert told["request"]["physical"] == "0x1000"
    assert run("explain", str(log), "5", code=2) == f"vtd: {log}: row 5: there are 5\n"
    designs = run("explain", str(log), "0", "--page-size", "4K,2M", code=2)
    assert "2 designs: a row is explained for one" in designs
