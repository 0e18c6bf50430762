"""vtd demo: one DMA translated, one refused, both explained, and the IOTLB filling."""

import json

from typer.testing import CliRunner

from vtd.cli import main


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["demo", *arguments])
    assert result.exit_code == 0
    return result.stdout


def test_it_explains_a_translated_and_a_refused_transfer() -> None:
    shown = run()
    assert "=> allowed: physical address 0x2000000" in shown
    assert "=> blocked: fault 05h (LGN.2), no write permission; recorded" in shown
    assert "the fault record: 00:02.0, write request, page 0x404000, reason 05h" in shown
    assert "the IOTLB has the answer: no table is read" in shown
    assert "IOTLB: 1 hit, 3 misses, 2 held" in shown
    assert "'DMA through VT-d'" in shown


def test_json_has_the_same() -> None:
    transfers = json.loads(run("--format", "json"))["transfers"]
    assert [each["walk"]["physical"] for each in transfers] == [
        "0x2000000",
        "0x2000000",
        "0x2001000",
        None,
    ]
    assert [each["fault_record"] is None for each in transfers] == [True, True, True, False]
    assert [len(each["iotlb"]["entries"]) for each in transfers] == [1, 1, 2, 2]
