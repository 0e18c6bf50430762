"""Text of anybody's stays text in SVG and HTML."""

from html.parser import HTMLParser
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from vtd.pictures.canvas import Canvas, clipped, columns, folded
from vtd.pictures.markup import Markup, element, html_table, visible

TEXTS = st.text(st.characters() | st.sampled_from("<>&\"'\x00\x1b\u202e\ud800\ufffe"))


@given(TEXTS, TEXTS)
def test_text_and_attributes_come_back_as_they_were(text: str, value: str) -> None:
    parsed = ElementTree.fromstring(element("text", text, class_=value, data_tip=None))
    assert (parsed.text or "") == visible(text)
    assert parsed.attrib == {"class": visible(value).replace("\n", " ")}


@given(TEXTS)
def test_what_is_shown_can_be_seen(text: str) -> None:
    assert visible(text).replace("\n", "").isprintable()
    assert visible(text) == text or not text.isprintable()


@given(TEXTS, st.integers(1, 40))
def test_a_clipped_text_is_no_wider_than_its_limit(text: str, limit: int) -> None:
    assert columns(clipped(text, limit)) <= limit
    short = visible(text).replace("\n", " ")
    assert columns(short) > limit or clipped(text, limit) == short


@given(TEXTS, st.integers(2, 40))
def test_folded_lines_have_every_word_in_order(text: str, width: int) -> None:
    lines = folded(text, width)
    assert all(columns(each) <= width for each in lines)
    assert " ".join(lines) == " ".join(clipped(word, width) for word in text.split())


def test_markup_is_not_escaped_twice_and_numbers_are_short() -> None:
    inner = element("b", "1 < 2")
    assert element("p", inner, Markup("<i/>")) == "<p><b>1 &lt; 2</b><i/></p>"
    assert element("rect", x=1.50000001, y=2.0) == '<rect x="1.5" y="2"/>'


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=3))
def test_a_table_has_its_cells_as_text(rows: list[list[str]]) -> None:
    class Cells(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()
            self.text = ""

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.add(tag)

        def handle_data(self, data: str) -> None:
            self.text += data

    parser = Cells()
    parser.feed(html_table("caption", ["a", "b"], [[*row] for row in rows]))
    parser.close()
    assert parser.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert parser.text == "captionab" + "".join(visible(each) for row in rows for each in row)


def test_a_canvas_is_as_large_as_what_is_on_it() -> None:
    canvas = Canvas()
    canvas.box(10, 20, 300, 40)
    canvas.chip(50, 100, "group 1", "chip1")
    root = ElementTree.fromstring(canvas.svg("<title>"))
    assert float(root.get("width", 0)) > 310
    assert float(root.get("height", 0)) > 115
    assert root[0].text == "<title>"
