"""Edits as people write them."""

import re
from pathlib import Path

import pytest

from vtd.dmar.edit import EditError
from vtd.dmar.records import Rmrr
from vtd.dmar.table import Table
from vtd.dmar.written_edits import EDITS, written_edits

TABLE = Table.parse(Path("tests/dmar/clean/iasl-template-1.bin").read_bytes())


def test_edits_apply_in_their_own_order_whatever_order_they_are_given_in() -> None:
    edits = {
        "add-rmrr": ["0x7a000000-0x7a0fffff=00:14.0"],
        "drop-rmrr": ["all"],
    }
    after = written_edits(TABLE, edits)
    assert [each.base for each in after.all(Rmrr)] == [0x7A00_0000]
    assert list(EDITS).index("drop-rmrr") < list(EDITS).index("add-rmrr")


def test_without_an_edit_length_and_checksum_come_out_right() -> None:
    assert written_edits(TABLE, {}).pack() == TABLE.sealed().pack()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("drop-region", "all", "no edit is called 'drop-region'"),
        ("drop-rmrr", "none", "'none' is no number"),
        ("set-flag", "x", "'x' is not FLAG=0|1"),
    ],
)
def test_what_does_not_apply_is_said(name: str, text: str, said: str) -> None:
    with pytest.raises(EditError, match=re.escape(said)):
        written_edits(TABLE, {name: [text]})
