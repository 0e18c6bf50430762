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


def test_a_guest_and_its_device() -> None:
    """Each scene shows what it is there for."""
    scenes = json.loads(run("guest", "--format", "json"))["scenes"]
    outcomes = [[step["outcome"] for step in scene["steps"]] for scene in scenes]
    findings = [[step["finding"] for step in scene["steps"] if step["finding"]] for scene in scenes]
    assert outcomes[0] == ["done", "'from the guest'", "done", "'from a device!'"]
    assert findings[0] == []
    assert outcomes[1][1] == "fault 85h, no write permission"
    assert [each.startswith("exit 48") for each in outcomes[1]] == [False] * 4 + [True]
    assert len(findings[1]) == 1 and "missing INVEPT" in findings[1][0]
    assert outcomes[2][2].startswith("exit 48")
    assert outcomes[2][3:] == ["done", "done", "fault 85h, no write permission"]
    assert len(findings[2]) == 1 and "missing page-selective iotlb_inv" in findings[2][0]
    assert outcomes[3][1].startswith("no exit")
    assert outcomes[3][-1] == "exit 1 (EXTERNAL INTERRUPT), qualification 0x0"
    assert scenes[3]["figures"] == {"exit_interruption_info": "0x80000041"}
    assert outcomes[4] == [
        "24 intercepts",
        "8 intercepts",
        "the same but for vac",
        "each in its own memory",
    ]
    counts = scenes[4]["figures"]["intercepts"]
    assert [sum(each.values()) for each in counts.values()] == [24, 8]
    assert outcomes[5] == [
        "the monitor's memory is overwritten",
        "guest 2's own memory, nobody else's",
        "refused",
    ]


def test_it_is_told_in_words_too() -> None:
    shown = run("guest")
    assert "exit interruption info: 0x80000041" in shown
    assert "intercepts, vac 7Fh: mov_to_cr 2" in shown


def test_there_is_no_other_demo() -> None:
    result = CliRunner().invoke(main, ["demo", "device"])
    assert result.exit_code == 2
    assert "guest" in result.output


def test_connectivity_shows_that_the_requester_id_decides() -> None:
    """The same read: refused for a virtual function, not for a queue, by the domain for I/OAT."""
    actors = json.loads(run("connectivity", "--format", "json"))["actors"]
    reach = {(each["name"], each["owner"]): each["reach"] for each in actors}
    assert reach == {
        ("virtual function 0", "A"): ["A"],
        ("virtual function 1", "B"): ["B"],
        ("VMDq queue 2", "A"): ["A", "B", "host"],
        ("VMDq queue 3", "B"): ["A", "B", "host"],
        ("I/OAT engine", "A"): ["A"],
        ("I/OAT engine", "host"): ["A", "B", "host"],
    }
    for actor in actors:
        for attempt in actor["attempts"]:
            assert (attempt["fault"] is None) == attempt["reached"]
    ids = [each["requester_id"] for each in actors]
    assert ids == ["0000:01:10.0", "0000:01:10.2", *["0000:01:00.0"] * 2,
                   "0000:00:04.0", "0000:00:04.1"]  # fmt: skip
    shown = run("connectivity")
    assert "reads the memory of B: refused, fault 06h recorded for 01:10.0 at 0x2002000" in shown
    assert "VMDq queue 2 of guest A       -.-- 0000:01:00.0 --> [A] [B] [host]" in shown
    assert "'secret of B', which is not its own" in shown
