"""Plans as text: what can be wrong with one, all of it named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtd.host.plan import Interrupts, read_plan
from vtd.host.rules import RULES
from vtd.machine.reading import MachineError

PAGE = Path(__file__).parents[3] / "docs" / "passthrough.md"
GUEST = '[[guest]]\nname = "a"\nmemory = [{ start = 0, size = 4096 }]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f: guest: there is none"),
        ("[[guest]", "f: no TOML"),
        (GUEST + GUEST, "f:4: guest a: name: there are two guests a"),
        (GUEST.replace("4096", "4095"), "f:1: guest a: memory: 0x0: not a range of whole pages"),
        (GUEST.replace("[{ start = 0, size = 4096 }]", "[]"), "f:1: guest a: memory: none"),
        (GUEST.replace(" }]", " }, { start = 0, size = 8192 }]"), "overlaps the range before"),
        (GUEST.replace("start = 0", "start = 0xffff_ffff_ffff_f000"), "reaches beyond 52 bits"),
        (GUEST + "cpus = 0\n", "guest a: cpus: none"),
        (GUEST + "maps = [{ device = 0, guest = 0, size = 4096 }]\n", "it sees no remapping unit"),
        (
            GUEST + 'viommu = "shadow"\nmaps = [{ device = 0, guest = 5, size = 4096 }]\n',
            "maps: 0x5: not a range of whole pages",
        ),
        (GUEST + '[[assign]]\nguest = "b"\ndevices = ["x"]', "f:4: assign 1: guest: there is no"),
        (GUEST + '[[assign]]\nguest = "a"\ndevices = []', "f:4: assign 1: devices: none"),
        (GUEST + '[policy]\nrmrr = "maybe"', "policy: rmrr: 'maybe' is none of refuse, relax, map"),
        (GUEST + '[policy]\npage_size = "8K"', "policy: page_size: '8K' is none of 4K, 2M, 1G"),
        (GUEST + '[policy]\nacs_override = ["all"]', "is no list of downstream, multifunction"),
        (GUEST + 'policy = 3\n[[assign]]\nguest = "a"\ndevices = ["x"]', "unknown key"),
        (GUEST + '[[work]]\ndevice = "x"', "f:4: work 1: device: x is assigned to no guest"),
        (
            GUEST + '[[assign]]\nguest = "a"\ndevices = ["x"]\n[[work]]\ndevice = "x"\nunmaps = 1',
            "f:7: work 1: unmaps: its guest sees no remapping unit (viommu)",
        ),
        (GUEST + "assign = 5", "unknown key"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(MachineError) as error:
        read_plan(text, "f")
    assert message in str(error.value)


def test_several_faults_are_all_named() -> None:
    text = GUEST + 'cpus = 0\n[[assign]]\nguest = "b"\ndevices = []\n'
    with pytest.raises(MachineError) as error:
        read_plan(text, "f")
    assert len(error.value.lines) == 3


def test_an_assignment_names_only_what_differs() -> None:
    text = (
        '[policy]\ninterrupts = "posted"\nats = true\n'
        + GUEST
        + '[[assign]]\nguest = "a"\ndevices = ["x"]\npolicy = { ats = false }\n'
    )
    (assignment,) = read_plan(text).plan.assignments
    assert (assignment.policy.interrupts, assignment.policy.ats) == (Interrupts.POSTED, False)
    assert assignment.policy.page_size == 21


def test_the_page_lists_every_rule() -> None:
    page = PAGE.read_text()
    for rule in RULES:
        section = f" ({rule.section})" if rule.section else ""
        assert f"| {rule.id} | {rule.title}{section} |" in page
