"""Frames come whole or not at all, whatever else is on the line."""

from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.conformance.interpreter import frame
from vtd.conformance.format import Kind
from vtd.conformance.frames import Frames

NOISE = st.binary(max_size=40).filter(lambda data: b"V" not in data)


@given(
    st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 99), st.binary(max_size=64), NOISE)),
    st.integers(1, 50),
)
def test_frames_are_found_between_anything(
    parts: list[tuple[Kind, int, bytes, bytes]], chunk: int
) -> None:
    stream = b"".join(noise + frame(kind, number, data) for kind, number, data, noise in parts)
    frames = Frames()
    found = [
        each
        for start in range(0, len(stream), chunk)
        for each in frames.feed(stream[start : start + chunk])
    ]
    assert [(each.kind, each.number, each.data) for each in found] == [
        (kind, number, data) for kind, number, data, _ in parts
    ]
    assert not frames.damaged


@given(st.binary(min_size=1, max_size=64), st.data())
def test_a_damaged_frame_is_left_out_and_counted(data: bytes, draw: st.DataObject) -> None:
    good = frame(Kind.CASE, 1, data)
    place = draw.draw(st.integers(24, len(good) - 1))
    bad = good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :]
    frames = Frames()
    found = list(frames.feed(bad + frame(Kind.END, 2)))
    assert [each.kind for each in found if each.number == 2] == [Kind.END]
    assert all(each.data != data for each in found)
    assert frames.damaged


def test_a_frame_that_is_cut_waits_for_the_rest() -> None:
    frames = Frames()
    assert list(frames.feed(frame(Kind.CASE, 3, b"abc")[:-1])) == []
    assert [each.data for each in frames.feed(b"c")] == [b"abc"]
