"""The rules: known findings on known tables, no crash on anything, and what each rule says."""

import re

import pytest
from hypothesis import given

from tests.support.dmar_corpus import CleanTable, MalformedTable, clean_tables, malformed_tables
from tests.support.dmar_strategies import any_bytes, tables
from vtd.dmar.description import build
from vtd.dmar.rules import GROUPS, RULES, Finding, Severity, check, validate
from vtd.dmar.table import Table


def keys(findings: list[Finding]) -> list[tuple[str, str, int]]:
    return sorted((each.rule, str(each.severity), each.offset) for each in findings)


@pytest.mark.parametrize("known", clean_tables(), ids=lambda known: known.id)
def test_findings_are_the_known_ones(known: CleanTable) -> None:
    assert keys(validate(known.data)) == known.findings


def test_hardware_tables_without_known_errors_have_none() -> None:
    for known in clean_tables():
        expected = {rule for rule, severity, _ in known.findings if severity == "error"}
        found = {each.rule for each in validate(known.data) if each.severity is Severity.ERROR}
        assert found == expected, known.id


@pytest.mark.parametrize("broken", malformed_tables(), ids=lambda broken: broken.id)
def test_every_broken_rule_is_reported(broken: MalformedTable) -> None:
    findings = validate(broken.data)
    assert broken.expect <= {each.rule for each in findings}
    assert keys(findings) == broken.findings


@given(any_bytes())
def test_findings_lie_inside_the_data_and_in_order(data: bytes) -> None:
    findings = validate(data)
    assert findings == sorted(findings)
    for each in findings:
        assert each.message.isprintable()
        assert 0 <= each.offset <= max(len(data), 48)
        assert each.offset + each.length <= max(len(data), 48)


@given(any_bytes())
def test_a_selection_finds_what_all_rules_find_of_it(data: bytes) -> None:
    chosen = {id for id in RULES if id[5] in "HUR"}
    assert validate(data, rules=chosen) == [each for each in validate(data) if each.rule in chosen]


@given(tables())
def test_a_sealed_table_breaks_no_rule_about_its_form(table: Table) -> None:
    found = {each.rule for each in check(table)}
    assert not found & {"DMAR-H02", "DMAR-H03", "DMAR-H04", "DMAR-H05"}
    assert not any(re.fullmatch(r"DMAR-S0[1-5]", rule) for rule in found)


@pytest.mark.parametrize("known", clean_tables()[::4], ids=lambda known: known.id)
def test_what_was_cut_away_breaks_no_rule(known: CleanTable) -> None:
    """A cut table has the findings of the part that is left, and that it was cut."""
    whole = set(keys(validate(known.data)))
    length = int.from_bytes(known.data[4:8], "little")
    for end in range(48, length, 1 + length // 60):
        findings = keys(validate(known.data[:end]))
        assert ("DMAR-H03", "error", 4) in findings
        assert {each for each in findings if each[0] != "DMAR-H03"} <= whole, end


@pytest.mark.parametrize("size", range(48))
def test_bytes_too_few_for_the_fixed_part_break_h02_only(size: int) -> None:
    findings = validate((b"DMAR" + bytes(44))[:size])
    assert [(each.rule, each.offset, each.length) for each in findings] == [("DMAR-H02", 0, size)]


def test_there_are_95_static_rules_and_13_that_need_the_platform() -> None:
    static = [rule for rule in RULES.values() if not rule.needs]
    assert (len(static), len(RULES)) == (95, 111)
    assert all(rule.check for rule in static)
    assert all(rule.platform_check for rule in RULES.values() if rule.needs)


def test_every_rule_is_in_a_group_and_says_what_is_at_stake() -> None:
    assert {id[5] for id in RULES} == set(GROUPS)
    for rule in RULES.values():
        assert re.fullmatch(r"DMAR-[A-Z]\d\d", rule.id)
        assert rule.meaning.rstrip().endswith("."), rule.id
        assert rule.title


def test_platform_rules_find_nothing_without_data() -> None:
    rules = {id for id in RULES if id[5] == "K"}
    for known in clean_tables():
        assert validate(known.data, rules=rules) == []


def test_a_table_cut_short_is_still_read_as_far_as_it_goes() -> None:
    known = next(each for each in clean_tables() if each.id.endswith("synthetic-multiseg2"))
    findings = validate(known.data[:120])
    assert [each.rule for each in findings if each.offset == 4] == ["DMAR-H03"]
    assert not any(each.rule in ("DMAR-S04", "DMAR-H05") for each in findings)


def test_an_hpet_id_in_two_units_is_reported_at_the_later_one() -> None:
    unit = '[[structure]]\ntype = "DRHD"\nregister_base = {}\n'
    entry = '[[structure.scope]]\ntype = "msi_hpet"\npath = ["0f.0"]\n'
    table = build("".join(unit.format(0x1000 * number) + entry for number in (1, 2)))
    findings = check(table, rules={"DMAR-D17", "DMAR-D18"})
    assert [(each.rule, each.offset) for each in findings] == [("DMAR-D17", 88)]


def test_rules_about_u04_use_only_the_four_bits_of_the_size() -> None:
    table = build('[[structure]]\ntype = "DRHD"\nregister_base = 0x1000\nsize = 0xf0')
    assert check(table, rules={"DMAR-U04"}) == []
    assert [each.rule for each in check(table, rules={"DMAR-S09"})] == ["DMAR-S09"]


def described(*structures: str) -> Table:
    """A table of structures, each in one line: its type, its keys, and after ``|`` its entries."""
    text = []
    for structure in structures:
        keys, *entries = structure.split("|")
        text.append("[[structure]]\n" + keys.replace("; ", "\n"))
        text += ["[[structure.scope]]\n" + entry.replace("; ", "\n") for entry in entries]
    return build("\n".join(text))


def found(table: Table, *rules: str) -> list[tuple[str, int]]:
    return [(each.rule, each.offset) for each in check(table, rules=rules or None)]


GRAPHICS = 'type = "pci_endpoint"; path = ["02.0"]'
ODD_GRAPHICS = GRAPHICS + "; odd_byte = 9"
NAMESPACE = 'type = "acpi_namespace"; path = ["02.0"]'


@pytest.mark.parametrize(
    ("rule", "structures", "offset"),
    [
        (
            "DMAR-D15",
            (
                f'type = "DRHD"|{ODD_GRAPHICS}',
                f'type = "DRHD"; register_base = 0x1000|{GRAPHICS}',
            ),
            89,
        ),
        (
            "DMAR-C05",
            (f'type = "SATC"|{GRAPHICS}', f'type = "SATC"; flags = 1|{ODD_GRAPHICS}'),
            72,
        ),
        ("DMAR-I04", (f'type = "SIDP"|{ODD_GRAPHICS}', f'type = "SIDP"|{GRAPHICS}'), 73),
        (
            "DMAR-I06",
            (f'type = "SATC"; flags = 1|{GRAPHICS}', f'type = "SIDP"|{ODD_GRAPHICS}'),
            72,
        ),
    ],
)
def test_an_odd_byte_after_its_path_makes_no_other_device(
    rule: str, structures: tuple[str, ...], offset: int
) -> None:
    assert found(described(*structures), rule) == [(rule, offset)]


@pytest.mark.parametrize("entry", [ODD_GRAPHICS, NAMESPACE + "; odd_byte = 9"])
def test_a_device_listed_with_an_odd_byte_is_under_its_unit(entry: str) -> None:
    whole = entry.partition("; odd")[0]
    for listed, wanted in ((entry, whole), (whole, entry)):
        table = described(
            f'type = "DRHD"|{listed}', f'type = "RMRR"|{wanted}', f'type = "SIDP"|{wanted}'
        )
        assert found(table, "DMAR-R09", "DMAR-X02") == []


def test_an_entry_without_a_path_breaks_d03_and_names_no_device() -> None:
    for type in ("pci_endpoint", "acpi_namespace"):
        entry = f'type = "{type}"; path = []'
        table = described(
            'type = "DRHD"; flags = ["include_pci_all"]',
            f'type = "RMRR"|{entry}',
            f'type = "SATC"|{entry}',
            f'type = "SATC"; flags = 1|{entry}',
            f'type = "SIDP"|{entry}',
            f'type = "SIDP"|{entry}',
        )
        about_devices = ("DMAR-R09", "DMAR-C05", "DMAR-I04", "DMAR-I06", "DMAR-X02")
        assert found(table, *about_devices) == []
        assert len(found(table, "DMAR-D03")) == 5


def test_half_a_pair_is_neither_a_path_nor_a_whole_pair() -> None:
    table = described('type = "DRHD"|type = "pci_endpoint"; path = []; odd_byte = 2')
    assert found(table, "DMAR-D03", "DMAR-D05") == [("DMAR-D03", 64), ("DMAR-D05", 64)]


def test_a_short_table_of_another_kind_is_no_cut_dmar_table() -> None:
    facp = b"FACP" + (40).to_bytes(4, "little") + bytes(32)
    (finding,) = validate(facp)
    assert finding.rule == "DMAR-H01"
    assert "this is no DMAR table" in finding.message
    (finding,) = validate(b"DMAR" + facp[4:])
    assert finding.rule == "DMAR-H02"
