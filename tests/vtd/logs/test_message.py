from vtd.logs.message import shape_of


def test_lines_that_differ_in_hexadecimal_numbers_are_of_one_shape() -> None:
    line = "vtd_dmar_translate dev 00:05.00 iova {} -> gpa {} mask 0xfff"
    numbers = ("0xffffc000", "0x2d1a000", "0xfed00000", "0x7")
    shapes = {shape_of(line.format(one, two)) for one in numbers for two in numbers}
    assert len(shapes) == 1
