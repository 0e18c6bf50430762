"""Charts and time lines hold any numbers and names."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from vtd.pictures.canvas import Tone
from vtd.pictures.chart import HEIGHT, MOST_LINES, WIDTH, Series, chart_svg
from vtd.pictures.timeline import WIDTH as LANE
from vtd.pictures.timeline import Lane, Mark, timeline_svg

SVG = "{http://www.w3.org/2000/svg}"
POINTS = st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 1)), max_size=8).map(
    lambda each: tuple(sorted(each))
)


@given(st.lists(st.builds(Series, st.text(max_size=200), POINTS), max_size=MOST_LINES + 3))
def test_every_point_is_inside_and_lines_that_are_too_many_are_counted(
    series: list[Series],
) -> None:
    root = ElementTree.fromstring(chart_svg("t", "x", "y", series))
    frame = root.findall(f"{SVG}rect")[1]
    left, top = float(frame.get("x", 0)), float(frame.get("y", 0))
    points = root.findall(f"{SVG}rect")[2:]
    assert len(points) == sum(len(each.points) for each in series[:MOST_LINES])
    for each in points:
        assert left - 4 <= float(each.get("x", 0)) <= left + WIDTH
        assert top - 4 <= float(each.get("y", 0)) <= top + HEIGHT
    more = len(series) - MOST_LINES
    assert (f"and {more} more" in "".join(root.itertext())) == (more > 0)


@st.composite
def lanes(draw: st.DrawFn) -> Lane:
    lines = draw(st.integers(1, 10_000))
    marks = draw(
        st.lists(
            st.tuples(
                st.integers(1, lines), st.integers(1, lines), st.text(), st.sampled_from(Tone)
            ),
            max_size=20,
        )
    )
    return Lane(
        draw(st.text(max_size=60)),
        lines,
        tuple(Mark(min(a, b), max(a, b), text, tone) for a, b, text, tone in marks),
    )


@given(st.lists(lanes(), min_size=1, max_size=3))
def test_marks_stay_on_their_lane_and_none_is_lost_from_sight(given: list[Lane]) -> None:
    root = ElementTree.fromstring(timeline_svg("t", given))
    boxes = root.findall(f"{SVG}rect")[1:]
    width = LANE
    left = float(boxes[0].get("x", 0))
    for each in boxes:
        x, wide = float(each.get("x", 0)), float(each.get("width", 0))
        assert left - 0.01 <= x
        assert x + wide <= left + width + 0.01
    drawn = len(boxes) - len(given)
    assert (drawn > 0) == any(each.marks for each in given)
