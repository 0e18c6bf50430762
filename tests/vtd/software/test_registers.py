"""Registers by their declaration, and the first steps of a driver."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from vtd.layouts.registers import (
    FaultEventData,
    FaultRecording,
    GlobalStatus,
    InterruptRemappingTableAddress,
    RootTableAddress,
)
from vtd.software.registers import read, start, write
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit


def unit() -> RemappingUnit:
    return RemappingUnit(PROFILES["xeon"], PhysicalMemory())


@given(st.integers(0, 0xFFFF))
def test_a_register_reads_as_it_was_written(data: int) -> None:
    written = unit()
    write(written, FaultEventData(data))
    assert read(written, FaultEventData) == data
    assert read(written, GlobalStatus) == 0


def test_a_register_that_the_capabilities_place_is_refused() -> None:
    with pytest.raises(ValueError, match="FaultRecording"):
        read(unit(), FaultRecording)
    with pytest.raises(ValueError, match="FaultRecording"):
        write(unit(), FaultRecording(0))


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_a_unit_is_started_as_the_status_says(
    rtps: bool, irtps: bool, tes: bool, ires: bool, cfis: bool
) -> None:
    started = unit()
    status = GlobalStatus.of(rtps=rtps, irtps=irtps, tes=tes, ires=ires, cfis=cfis)
    start(started, status, 0x1000, 0x2000)
    assert read(started, GlobalStatus) == status
    assert read(started, RootTableAddress).rta == 0x1000
    assert read(started, InterruptRemappingTableAddress).irta == 0x2000
    assert started.remapping.root == (0x1000 if rtps else 0)
