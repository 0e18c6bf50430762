"""Memory maps: every form gives the same reserved memory, and what is none is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.dmar.memory_map import MemoryMapError, parse_memory_map

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009efff : System RAM
7a000000-7affffff : Reserved
  7a100000-7a1fffff : Graphics Stolen Memory
7b000000-7b000fff : ACPI Non-volatile Storage
"""


def test_iomem_gives_reserved_and_nvs_memory() -> None:
    reserved = parse_memory_map(IOMEM)
    assert reserved.holds(0x7A000000, 0x7B001000)
    assert not reserved.holds(0x1000, 0x2000)


@pytest.mark.parametrize(
    "entry",
    [
        {"start": 0x1000, "end": 0x1FFF, "type": 2},
        {"base": "0x1000", "length": "0x1000", "type": "reserved"},
        {"start": "4096", "size": 4096, "type": "ACPI_NVS"},
        {"start": 0x1000, "length": 0x1000, "type": 4},
        {"start": 0x1000, "length": 0x1000, "type": "EfiRuntimeServicesData"},
    ],
)
def test_e820_entries_in_json(entry: dict[str, object]) -> None:
    for text in (json.dumps([entry]), json.dumps({"e820": [entry]})):
        assert parse_memory_map(text).holds(0x1000, 0x2000)
    assert not parse_memory_map(json.dumps([entry | {"type": 1}])).holds(0x1000, 0x2000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no line of the form"),
        ("00000000-00000000 : Reserved", "read /proc/iomem as root"),
        ("[1]", "a list( of objects)? is needed"),
        ("[{]", "not JSON"),
        ('{"e820": 1}', "a list( of objects)? is needed"),
        ('[{"start": "x", "end": 1}]', "memory map entry 0: start is no number"),
        ('[{"start": 1}]', "memory map entry 0: length is no number"),
    ],
)
def test_a_bad_memory_map_is_refused(text: str, message: str) -> None:
    with pytest.raises(MemoryMapError, match=message):
        parse_memory_map(text)


@given(st.text(max_size=80))
def test_any_text_is_a_memory_map_or_refused(text: str) -> None:
    for candidate in (text, "[" + text):
        try:
            parse_memory_map(candidate)
        except MemoryMapError as error:
            assert str(error)


FORMS = {
    "Linux": """\
[    0.000000] BIOS-provided physical RAM map:
[    0.000000] BIOS-e820: [mem 0x0000000000001000-0x000000000009efff] usable
[    0.000000] BIOS-e820: [mem 0x000000007a000000-0x000000007affffff] reserved
[    0.000000] BIOS-e820: [mem 0x000000007b000000-0x000000007b000fff] ACPI NVS
""",
    "Linux 7": """\
[    0.000000] BIOS-e820: [mem 0x0000000000001000-0x000000000009efff]  System RAM
[    0.000000] BIOS-e820: [gap 0x000000000009f000-0x0000000079ffffff]
[    0.000000] BIOS-e820: [mem 0x000000007a000000-0x000000007affffff]  device reserved
[    0.000000] BIOS-e820: [mem 0x000000007b000000-0x000000007b000fff]  ACPI NVS
[    0.000000] BIOS-e820: [mem 0x000000007b001000-0x000000007b001fff]  soft reserved
""",
    "Linux, wrapped by mail": """\
> [    0.000000] BIOS-e820: [mem 0x0000000000001000-0x000000000009efff]
> usable
> [    0.000000] BIOS-e820: [mem
> 0x000000007a000000-0x000000007affffff] reserved
> [    0.000000] BIOS-e820: [mem 0x000000007b000000-0x000000007b000fff] ACPI
> NVS
""",
    "a mail that was not decoded": """\
> [=C2=A0 =C2=A0 0.000000] BIOS-e820: [mem 0x0000000000001000-0x00000000000=
9efff]
> usable
> [=C2=A0 =C2=A0 0.000000] BIOS-e820: [mem 0x000000007a000000-0x000000007af=
fffff]
> reserved
> [=C2=A0 =C2=A0 0.000000] BIOS-e820: [mem 0x000000007b000000-0x000000007b0=
00fff]
> ACPI NVS
""",
    "EFI of Linux before 4.0": """\
EFI: mem00: type=7, attr=0xf, range=[0x0000000000001000-0x000000000009f000) (0MB)
EFI: mem01: type=0, attr=0xf, range=[0x000000007a000000-0x000000007b000000) (16MB)
EFI: mem02: type=10, attr=0xf, range=[0x000000007b000000-0x000000007b001000) (0MB)
""",
    "sysfs": """\
/sys/firmware/memmap/0/end:0x9efff
/sys/firmware/memmap/0/start:0x1000
/sys/firmware/memmap/0/type:System RAM
/sys/firmware/memmap/1/end:0x7affffff
/sys/firmware/memmap/1/start:0x7a000000
/sys/firmware/memmap/1/type:Reserved
/sys/firmware/memmap/2/end:0x7b000fff
/sys/firmware/memmap/2/start:0x7b000000
/sys/firmware/memmap/2/type:ACPI Non-volatile Storage
""",
    "coreboot": """\
 0. 0000000000001000-000000000009efff: RAM
 1. 000000007a000000-000000007affffff: RESERVED
12. 000000007b000000-000000007b000fff: ACPI NVS
""",
    "SeaBIOS": """\
  0: 0000000000001000 - 000000000009f000 = 1 RAM
  1: 000000007a000000 - 000000007b000000 = 2 RESERVED
  2: 000000007b000000 - 000000007b001000 = 4 NVS
""",
    "Linux before 3.1": """\
 BIOS-e820: 0000000000001000 - 000000000009f000 (usable)
 BIOS-e820: 000000007a000000 - 000000007b000000 (reserved)
 BIOS-e820: 000000007b000000 - 000000007b001000 (ACPI NVS)
""",
    "Xen": """\
(XEN) Xen-e820 RAM map:
(XEN)  [0000000000001000, 000000000009efff] (usable)
(XEN)  [000000007a000000, 000000007affffff] (reserved)
(XEN)  [000000007b000000, 000000007b000fff] (ACPI NVS)
""",
    "Xen before 4.14": """\
(XEN)  0000000000001000 - 000000000009f000 (usable)
(XEN)  000000007a000000 - 000000007b000000 (reserved)
(XEN)  000000007b000000 - 000000007b001000 (ACPI NVS)
""",
    "FreeBSD": """\
SMAP type=01 base=0000000000001000 len=000000000009e000
SMAP type=02 base=000000007a000000 len=0000000001000000
SMAP type=04 base=000000007b000000 len=0000000000001000
""",
    "EFI lines": """\
efi: mem00: [Conventional Memory|   |  |  |WB|  |WC|UC] range=[0x1000-0x9efff] (0MB)
efi: mem01: [Reserved           |RUN|  |  |WB|WT|WC|UC] range=[0x7a000000-0x7affffff] (16MB)
efi: mem02: [ACPI Memory NVS    |   |  |  |WB|WT|WC|UC] range=[0x7b000000-0x7b000fff] (0MB)
""",
    "UEFI shell": """\
Type       Start            End              # Pages          Attributes
Available  0000000000001000-000000000009EFFF 000000000000009E 000000000000000F
Reserved   000000007A000000-000000007AFFFFFF 0000000000001000 000000000000000F
ACPI_NVS   000000007B000000-000000007B000FFF 0000000000000001 000000000000000F
""",
    "quoted": "".join(f"> {line}\n" for line in IOMEM.splitlines()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_reserved_memory(form: str) -> None:
    reserved = parse_memory_map(FORMS[form])
    assert reserved.holds(0x7A000000, 0x7B001000)
    assert not reserved.meets(0x1000, 0x9F000)
    assert not reserved.meets(0x7B001000, 1 << 40)
