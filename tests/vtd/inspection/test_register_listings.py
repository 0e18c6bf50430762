"""Registers of units as logs, sysfs and debugfs print them: all give the same numbers."""

from __future__ import annotations

import pytest

from vtd.inspection.register_listings import ListedUnit, listed_units, sysfs_units

UNIT = ListedUnit("dmar0", 0xFED90000, 0x10, 0xD2008C40660462, 0xF050DA)
FORMS = {
    "Linux": "[ 0.1] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c40660462 ecap f050da",
    "Linux, quoted": "> DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c40660462 ecap f050da",
    "older Linux": "IOMMU fed90000: ver 1:0 cap d2008c40660462 ecap f050da",
    "oldest Linux": "IOMMU 0 0xfed90000: ver 1:0 cap 0xd2008c40660462 ecap 0xf050da",
    "Xen": "(XEN) [VT-D]drhd->address = fed90000 iommu->reg = ffff82c000203000\n"
    "(XEN) [VT-D]cap = d2008c40660462 ecap = f050da",
    "debugfs": "IOMMU: dmar0 Register Base Address: fed90000\n"
    "VER \t0x00\t\t0x10\nCAP \t0x08\t\t0x00d2008c40660462\nECAP \t0x10\t\t0x0000000000f050da",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_numbers(form: str) -> None:
    (unit,) = listed_units(FORMS[form])
    assert unit[1:] == UNIT[1:]


def test_units_are_listed_once_and_in_order() -> None:
    text = "\n".join([FORMS["Linux"], FORMS["Linux"].replace("d9", "da"), FORMS["debugfs"]])
    assert [each.base for each in listed_units(text)] == [0xFED90000, 0xFEDA0000]


def test_sysfs_has_a_file_for_each() -> None:
    files = {
        "dmar0/intel-iommu/address": b"fed90000\n",
        "dmar0/intel-iommu/version": b"1:0\n",
        "dmar0/intel-iommu/cap": b"d2008c40660462\n",
        "dmar0/intel-iommu/ecap": b"f050da\n",
        "dmar1/intel-iommu/ecap": b"f050da\n",
        "dmar2/intel-iommu/cap": b"?\n",
        "dmar2/intel-iommu/ecap": b"?\n",
    }
    assert sysfs_units(files) == [UNIT]


@pytest.mark.parametrize("text", ["", "cap ecap", "IOMMU: dmar0 Register Base Address: fed90000"])
def test_a_text_without_registers_has_no_unit(text: str) -> None:
    assert listed_units(text) == []
