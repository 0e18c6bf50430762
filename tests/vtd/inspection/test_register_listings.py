"""Registers of units as logs, sysfs and debugfs print them: all give the same numbers."""

from __future__ import annotations

import pytest

from vtd.inspection.register_listings import ListedUnit, listed_units, sysfs_units

UNIT = ListedUnit("dmar0", 0xFED90000, 0x10, 0xD2008C40660462, 0xF050DA)
FORMS = {
    "Linux": "[ 0.1] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c40660462 ecap f050da",
    "Linux, quoted": "> DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c40660462 ecap f050da",
    "Linux, wrapped": "> [ 0.1] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap\n"
    "> d2008c40660462 ecap f050da\n> [ 0.2] DMAR: dmar1: x",
    "Linux, mail not decoded": "<6>[    0.536720] DMAR: dmar0: reg_base_addr fed90000 "
    "ver 1:0 cap d2008c4=\n0660462 ecap f050da\n<6>[    0.536738] DMAR: No ATSR found",
    "older Linux": "IOMMU fed90000: ver 1:0 cap d2008c40660462 ecap f050da",
    "Linux 2.6.30 to 4.1": "dmar: IOMMU 0: reg_base_addr fed90000 ver 1:0 cap d2008c40660462 ecap "
    "f050da\nIOMMU 0 0xfed90000: using Queued invalidation",
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


def test_units_of_several_kernels_are_each_listed() -> None:
    old = FORMS["Linux 2.6.30 to 4.1"].replace("IOMMU 0", "IOMMU 1").replace("fed90000", "fed91000")
    units = listed_units(f"{FORMS['Linux']}\n{old}\n")
    assert [(unit.name, unit.base) for unit in units] == [
        ("dmar0", 0xFED90000),
        ("fed91000", 0xFED91000),
    ]


BARE = {
    "chipsec": "[*] VTBAR_VER = 0x00000010 << Version (VTBAR + 0x0)\n"
    "[*] VTBAR_CAP = 0x00D2008C40660462 << Capability (VTBAR + 0x8)\n"
    "[*] VTBAR_ECAP = 0x0000000000F050DA << Extended Capability (VTBAR + 0x10)\n",
    "FreeBSD": "dmar0: regs@0x00000000fed90000, ver=1.0, seg=0, flags=<INCLUDE_ALL>\n"
    "dmar0: cap=d2008c40660462<ZLR,PHMR,PLMR>, ecap=f050da<PT,IR>\n",
    "FreeBSD, in halves": "dmar0: <DMA remap> iomem 0xfed90000-0xfed90fff on acpi0\n"
    "dmar0: regs@0xfed90000, ver=1.0, seg=0, flags=<1<INCLUDE_ALL_PCI>>\n"
    "dmar0: cap=40660462<PLMR,PHMR,ZLR>,d2008c<PSI,DWD,DRD>, ndoms=2, sagaw=4, mgaw=39, fro=64\n"
    "dmar0: ecap=f050da<QI,IR,EIM,PT,SC>,0, mhmw=15, iro=80\n",
    "devmem": "# busybox devmem 0xfed90000\n0x00000010\n# busybox devmem 0xfed90008 64\n"
    "0x00D2008C40660462\n# busybox devmem 0xfed90010 64\n0x0000000000F050DA\n",
    "halves with an underscore": "base 0xfed90000\nver: 1:0\n"
    "Capability register: 0x00D2008C_40660462\nExtended capability: 0x00000000_00F050DA\n",
    "edk2": "  VER_REG     - 0x00000010\n  CAP_REG     - 0x00D2008C40660462\n"
    "  ECAP_REG    - 0x0000000000F050DA\n",
    "grep of sysfs": "".join(
        f"/sys/class/iommu/dmar0/intel-iommu/{name}:{value}\n"
        for name, value in (
            ("address", "fed90000"), ("cap", "d2008c40660462"), ("domains_supported", "65536"),
            ("ecap", "f050da"), ("version", "1:0"),
        )
    ),
    "head of sysfs": "".join(
        f"==> /sys/class/iommu/dmar0/intel-iommu/{name} <==\n{value}\n\n"
        for name, value in (("address", "fed90000"), ("cap", "d2008c40660462"), ("ecap", "f050da"))
    ),
    "cat in a shell": "".join(
        f"$ cat /sys/class/iommu/dmar0/intel-iommu/{name}\n{value}\n"
        for name, value in (("ecap", "f050da"), ("version", "1:0"), ("cap", "d2008c40660462"))
    ),
    "in words": "Capability Register: 0xd2008c40660462\nExtended Capability Register: 0xf050da",
    "two lines": "cap  d2008c40660462\necap f050da",
    "one line": "IOMMU[0]: cap=0xd2008c40660462, ecap=0xf050da",
    "files of sysfs": "d2008c40660462\nf050da\n",
    "UEFI shell, mm": "MEM  0x00000000FED90008 : 0x00D2008C40660462\n"
    "MEM  0x00000000FED90010 : 0x0000000000F050DA\n",
    "devmem2": "Value at address 0xFED90008 (0x7f5e9b6b7008): 0xD2008C40660462\n"
    "Value at address 0xFED90010 (0x7f5e9b6b7010): 0xF050DA\n",
    "halves": "FED90008: 0x40660462\nFED9000C: 0x00D2008C\nFED90010: 0x00F050DA\n"
    "FED90014: 0x00000000\n",
    "U-Boot, md": "fed90000: 00000010 00000000 40660462 00d2008c  ........b.f@....\n"
    "fed90010: 00f050da 00000000 00000000 c7000000  .P..............\n",
    "bytes": "FED90000: 10 00 00 00 00 00 00 00-62 04 66 40 8C 00 D2 00  *........b.f@....*\n"
    "FED90010: DA 50 F0 00 00 00 00 00-00 00 00 00 00 00 00 C7  *.P..............*\n",
}  # fmt: skip


@pytest.mark.parametrize("form", BARE)
def test_lines_that_name_registers_and_reads_of_memory_are_read(form: str) -> None:
    (unit,) = listed_units(BARE[form])
    assert unit[2:] == UNIT[2:]
    assert unit.base in (None, UNIT.base)


def test_registers_of_several_units_are_kept_apart() -> None:
    first = BARE["grep of sysfs"]
    text = first + first.replace("dmar0", "dmar1").replace("d9", "da")
    assert [each.name for each in listed_units(text)] == ["dmar0", "dmar1"]
    twice = BARE["edk2"] + BARE["edk2"].replace("50DA", "50DE")
    assert [each.ecap for each in listed_units(twice)] == [0xF050DA, 0xF050DE]


@pytest.mark.parametrize(
    "text",
    [
        "Capabilities: [40] Express (v2) Endpoint, MSI 00\nCapabilities: [100 v1] AER",
        "FED90000: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
        "FED90010: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n",
        "00000000: 44 4D 41 52 70 00 00 00 01 EF 41 4C 41 53 4B 41\n"
        "00000010: 41 20 4D 20 49 20 20 20 02 00 00 00 20 20 20 20\n",
    ],
)
def test_what_can_be_no_registers_is_not_taken_for_them(text: str) -> None:
    assert listed_units(text) == []


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
