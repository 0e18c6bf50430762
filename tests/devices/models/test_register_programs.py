"""Register and descriptor programs by chance: nothing raises, and no request passes its fence."""

from __future__ import annotations

from collections import Counter

import pytest

from devices.models import MODELS
from tests.devices.models.register_programs import PROGRAMS

PROGRAMS_OF_A_BENCH = 50


def test_every_model_has_programs() -> None:
    assert PROGRAMS.keys() | {"nic82576"} == MODELS.keys()


def campaign(name: str, programs: int, seed: int) -> Counter[str]:
    """Run so many programs; what happened."""
    benches, program = PROGRAMS[name]
    happened: Counter[str] = Counter()
    for number in range(0, programs, PROGRAMS_OF_A_BENCH):
        for bench in benches(seed + number):
            for _ in range(PROGRAMS_OF_A_BENCH):
                program(bench)
            bench.check()
            happened["refused"] += bench.port.refused
            happened["written"] += bench.port.written
    return happened


@pytest.mark.parametrize("name", PROGRAMS)
def test_register_programs_by_chance(name: str) -> None:
    happened = campaign(name, 2_000, 0)
    assert happened["refused"] > 50
    assert happened["written"] > 300


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_million_register_programs(name: str) -> None:
    assert campaign(name, 1_000_000, 1)["refused"] > 0
