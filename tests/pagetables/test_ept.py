"""EPT entries: each field at the bits that Tables 28-1 to 28-6 of the SDM print."""

import pytest

from pagetables.bits import BitRecord
from pagetables.ept import EptEntry, EptPage1G, EptPage2M, EptPage4K

FLAGS = {"r": 0, "w": 1, "x": 2, "a": 8, "xu": 10}
PAGE = {**FLAGS, "ipat": 6, "d": 9, "sve": 63}


@pytest.mark.parametrize(
    ("record", "flags", "lowest"),
    [
        (EptEntry, FLAGS, 12),
        (EptPage4K, PAGE, 12),
        (EptPage2M, {**PAGE, "ps": 7}, 21),
        (EptPage1G, {**PAGE, "ps": 7}, 30),
    ],
)
def test_fields_sit_where_the_manual_has_them(
    record: type[BitRecord], flags: dict[str, int], lowest: int
) -> None:
    assert record.WIDTH == 64
    for name, bit in flags.items():
        assert record.of(**{name: True}) == 1 << bit
    assert record.of(addr=(1 << 52) - (1 << lowest)) == (1 << 52) - (1 << lowest)
    if record is not EptEntry:
        assert record.of(emt=7) == 0b111 << 3
