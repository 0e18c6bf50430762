"""Quoted-printable is undone where a text has it, against the encoder of the standard library."""

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.mail import unquoted

HEADER = "Content-Transfer-Encoding: quoted-printable\n\n"
LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=200))
HALF = "  [    4.{:06}] DMAR: [DMA Read] Request device [03:00.0] fault addr {}="


@given(LINES)
def test_a_message_says_what_was_encoded(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert unquoted(HEADER + quopri.encodestring(text.encode()).decode()) == HEADER + text


@given(LINES)
def test_a_text_without_breaks_at_the_usual_width_stays(lines: list[str]) -> None:
    text = "\n".join(line.rstrip("=") for line in lines)
    assert unquoted(text) == text


def test_a_part_of_a_message_is_known_by_its_breaks() -> None:
    start = HALF.format(1, "7")
    assert len(start) in range(70, 77)
    assert unquoted(f"{start}\n9c000") == f"{start[:-1]}9c000"
    assert unquoted(f"{start}\n9c000\n=09reg =3D 1=20") == f"{start[:-1]}9c000\n\treg = 1 "


def test_equals_signs_of_other_text_stay() -> None:
    for text in ("a = 3D=\nb", f"{HALF.format(1, '')}=\n", "=" * 72 + "\nx=3D", "size=20\nvga=3D"):
        assert unquoted(text) == text


def test_marks_keep_the_numbers_of_lines() -> None:
    start = HALF.format(1, "7")
    assert unquoted(f"a\n{start}\n9c000\nb", "\0") == f"a\n{start[:-1]}9c000\n\0\nb"


def test_text_that_ends_with_a_break_is_not_lost() -> None:
    assert unquoted(f"{HEADER}ab=\n") == f"{HEADER}ab"
    assert unquoted(f"{HEADER}ab=") == f"{HEADER}ab"


@given(st.binary(min_size=16, max_size=160), st.sampled_from(["", "  ", "> ", ">> ", "    "]))
@pytest.mark.parametrize(
    "form",
    [
        "{at:04X}: {data}  {text}=",
        "{at:08x}: {words} {text}=",
        "[    1.234560] {at:08x}: {data} {text}=",
    ],
)
def test_rows_of_bytes_go_on_after_an_equals_sign(form: str, data: bytes, quote: str) -> None:
    rows = [data[at : at + 16] for at in range(0, len(data), 16)]
    lines = [
        quote + form.format(at=at, data=row.hex(" "), words=row.hex(" ", 2), text="." * len(row))
        for at, row in enumerate(rows)
    ]
    assert unquoted("\n".join(lines)) == "\n".join(lines)


@given(st.binary(min_size=50, max_size=300))
def test_base64_is_left_alone(data: bytes) -> None:
    text = base64.encodebytes(data).decode()
    assert unquoted(text) == text
