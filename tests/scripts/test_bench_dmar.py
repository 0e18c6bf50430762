"""The DMAR bench: its tables are what its figures are called after."""

from scripts.bench_dmar import many_scopes, many_units, measure, typical_table
from vtd.dmar import Severity, Table, validate
from vtd.dmar.records import Drhd, Rhsa


def test_the_tables_are_sound_and_of_the_size_promised() -> None:
    for data in (typical_table(), many_units(), many_scopes()):
        assert all(each.severity < Severity.WARNING for each in validate(data))
    units = Table.parse(many_units())
    assert len(units.all(Drhd)) == len(units.all(Rhsa)) == 200
    assert len(Table.parse(many_scopes()).entries) == 8000
    assert 64_000 < len(many_scopes()) <= 0x10000


def test_every_figure_has_a_target() -> None:
    for figure in measure(rounds=1):
        assert figure.milliseconds > 0
        assert figure.target > 0
