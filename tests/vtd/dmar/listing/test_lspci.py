"""One small machine in every form in which people post it: what a form shows is read, no more."""

from __future__ import annotations

import quopri
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import Acs, PciFunction, PciTree, PciTreeError, SrIov

GRAPHICS, PORT, CARD = Bdf.parse("00:02.0"), Bdf.parse("00:1c.0"), Bdf.parse("01:00.0")

VERBOSE = """\
00:02.0 VGA compatible controller [0300]: Acme Graphics [8086:1234] (rev 04)
\tControl: I/O+ Mem+ BusMaster+
\tStatus: Cap+ 66MHz-
\tCapabilities: [70] Express (v2) Root Complex Integrated Endpoint, MSI 00
\tCapabilities: [320 v1] Single Root I/O Virtualization (SR-IOV)
\t\tIOVCtl:\tEnable+ Migration- Interrupt- MSE+ ARIHierarchy-
\t\tInitial VFs: 7, Total VFs: 7, Number of VFs: 3, Function Dependency Link: 00
\t\tVF offset: 1, stride: 1, Device ID: 1234

00:1c.0 PCI bridge [0604]: Acme Port [8086:a33c] (rev f0) (prog-if 00 [Normal decode])
\tStatus: Cap+ 66MHz-
\tIOMMU group: 5
\tBus: primary=00, secondary=01, subordinate=02, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
\t\tDevCap:\tMaxPayload 256 bytes, PhantFunc 0
\tCapabilities: [140 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd- EgressCtrl- DirectTrans-
\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd- EgressCtrl- DirectTrans-

01:00.0 Ethernet controller [0200]: Acme Network [8086:1572] (rev 02)
\tStatus: Cap+ 66MHz-
\tCapabilities: [a0] Express (v2) Endpoint, MSI 00
\t\tDevCap:\tMaxPayload 512 bytes, PhantFunc 3
\t\tDevCtl:\tCorrErr- NonFatalErr-
\t\t\tRlxdOrd+ ExtTag+ PhantFunc+ AuxPwr- NoSnoop+
"""
NUMBERED = VERBOSE
NAMED = re.sub(r" \[[0-9a-f]{4}(?::[0-9a-f]{4})?\]", "", VERBOSE)
WITHOUT_ROOT = re.sub(
    r"(\tCapabilities: .*\n(\t\t.*\n)*)+", "\tCapabilities: <access denied>\n", VERBOSE
)
WITH_DOMAINS = re.sub(r"^(?=[0-9a-f]{2}:)", "0000:", VERBOSE, flags=re.MULTILINE)
SHORT = "\n".join(line for line in VERBOSE.splitlines() if line[:1].isdigit())


def prefixed(prefix: str) -> Callable[[str], str]:
    return lambda text: "".join(f"{prefix}{line}\n" for line in text.splitlines())


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "indented": prefixed("      "),
    "quoted": prefixed("> > "),
    "of a log": prefixed("Nov 28 06:00:01 host lspci[42]: "),
    "with the time": prefixed("[   12.345678] "),
    "of grep": prefixed("lspci.txt:"),
    "with DOS line ends": lambda text: text.replace("\n", "\r\n"),
    "in a mail": lambda text: f"Hello,\n\nhere it is:\n\n{text}\n-- \nregards\n",
    "in a mail that was not decoded": lambda text: (
        "Content-Transfer-Encoding: quoted-printable\n\n"
        + quopri.encodestring(text.encode(), quotetabs=True).decode()
    ),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("text", [NUMBERED, WITH_DOMAINS], ids=["-vvv", "-D"])
def test_wrapped_listings_are_read_as_the_bare_one(text: str, wrapping: str) -> None:
    bare = parse_pci_tree(VERBOSE).functions
    assert parse_pci_tree(WRAPPINGS[wrapping](text)).functions == bare


def test_a_verbose_listing_of_root_shows_everything() -> None:
    tree = parse_pci_tree(VERBOSE)
    graphics, port, card = (tree.functions[bdf] for bdf in (GRAPHICS, PORT, CARD))
    assert graphics.sriov == SrIov(offset=1, stride=1, number=3, total=7)
    assert (graphics.vendor_id, graphics.device_id, graphics.class_code) == (0x8086, 0x1234, 0x300)
    assert (port.secondary_bus, port.subordinate_bus, port.group) == (1, 2, 5)
    assert port.acs == Acs(0b0001111, 0b0001101)
    assert port.express_type == PciFunction.ROOT_PORT
    assert card.phantom_bits == 2
    assert card.acs is None
    assert all(each.acs_known and each.express_known for each in tree.functions.values())
    assert [graphics.is_bridge, port.is_bridge, card.is_bridge] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "express", "header"),
    [(NAMED, True, True), (WITHOUT_ROOT, False, True), (SHORT, False, False)],
    ids=["names only", "without root", "short"],
)
def test_what_a_form_does_not_show_is_unknown(text: str, express: bool, header: bool) -> None:
    tree = parse_pci_tree(text)
    for bdf, code in ((GRAPHICS, 0x0300), (PORT, 0x0604), (CARD, 0x0200)):
        function = tree.functions[bdf]
        assert function.class_code == code
        assert (function.express_known, function.header_known) == (express, header)
    assert tree.functions[PORT].is_bridge
    assert tree.functions[CARD].is_bridge is (False if header else None)
    assert tree.may_be_below_a_bridge(CARD) is not header


@pytest.mark.parametrize(
    ("heading", "code"),
    [
        ("00:02.0 0300: 8086:1234 (rev 04)", 0x0300),
        ("00:02.0 Class 0300: 8086:1234 (rev 04)", 0x0300),
        ("00:02.0 VGA compatible controller [Class 0300]: Acme [8086:1234]", 0x0300),
        ('00:02.0 "VGA compatible controller [0300]" "Acme [8086]" "Graphics [1234]" -r04', 0x0300),
        ('00:02.0 "0300" "8086" "1234" -r04 "17aa" "3972"', 0x0300),
        ("00:02.0 USB Controller: Acme", 0x0C03),
        ("00:02.0 3D controller: Acme", 0x0302),
        ("00:02.0 Audio device: Acme [Class of 2004]", 0x0403),
        ("00:02.0 Something else: Acme", None),
    ],
)
def test_the_class_is_read_as_number_or_by_its_name(heading: str, code: int | None) -> None:
    function = parse_pci_tree(heading).functions[GRAPHICS]
    assert function.class_code == code
    if "8086" in heading:
        assert (function.vendor_id, function.device_id) == (0x8086, 0x1234)


def test_machine_readable_records_are_read() -> None:
    text = "Slot:\t00:1c.0\nClass:\tPCI bridge [0604]\nVendor:\tAcme [8086]\nIOMMUGroup:\t3\n"
    function = parse_pci_tree(text).functions[PORT]
    assert (function.class_code, function.group) == (0x0604, 3)


DRAWN = """\
-+-[0000:80]-+-00.0
 |           \\-02.0-[81]--
 \\-[0000:00]-+-00.0  Acme Host bridge
             +-1c.0-[01-02]--+-00.0  Acme card
             |               \\-00.1  Acme card
             +-1d.0-[03-04]----00.0-[04]----07.0
             \\-1f.0
"""


def test_a_drawing_shows_the_buses() -> None:
    tree = parse_pci_tree(DRAWN)
    assert sorted(map(str, tree.functions)) == [
        "0000:00:00.0", "0000:00:1c.0", "0000:00:1d.0", "0000:00:1f.0", "0000:01:00.0",
        "0000:01:00.1", "0000:03:00.0", "0000:04:07.0", "0000:80:00.0", "0000:80:02.0",
    ]  # fmt: skip
    assert tree.bridges_above(Bdf.parse("04:07.0")) == [Bdf.parse("03:00.0"), Bdf.parse("00:1d.0")]
    assert tree.functions[PORT].subordinate_bus == 2
    assert tree.functions[Bdf.parse("80:02.0")].is_bridge
    assert tree.functions[Bdf.parse("00:1f.0")].is_bridge is False
    assert tree.functions[Bdf.parse("01:00.0")].name == "Acme card"


def test_several_listings_of_a_machine_are_put_together() -> None:
    drawing = "-[0000:00]-+-02.0\n           \\-1c.0-[01-02]----00.0\n"
    tree = parse_pci_tree(f"{SHORT}\n$ lspci -t\n{drawing}")
    port = tree.functions[PORT]
    assert (port.class_code, port.secondary_bus, port.device_id) == (0x0604, 1, 0xA33C)
    assert tree.bridge_above(CARD) == PORT
    assert len(tree.functions) == 3


@pytest.mark.parametrize("text", [
    "IOMMU Group 7 00:1c.0 PCI bridge [0604]: Acme [8086:a33c]\n",
    "IOMMU Group 7:\n\t00:1c.0 PCI bridge [0604]: Acme [8086:a33c]\n",
])  # fmt: skip
def test_listings_of_groups_name_them(text: str) -> None:
    other = "IOMMU Group 8 00:02.0 VGA compatible controller [0300]: Acme [8086:1234]\n"
    tree = parse_pci_tree(text + other)
    assert (tree.functions[PORT].group, tree.functions[GRAPHICS].group) == (7, 8)


def test_lines_that_only_speak_of_functions_are_no_listing() -> None:
    log = (
        "pci 0000:00:02.0: [8086:9a49] type 00\nDMAR: [DMA Read] Request device [00:02.0] addr 0\n"
    )
    with pytest.raises(PciTreeError, match="no function found"):
        parse_pci_tree(log)


LINES = VERBOSE.splitlines() + DRAWN.splitlines() + SHORT.splitlines()


@given(st.lists(st.sampled_from(LINES), max_size=12), st.sampled_from(list(WRAPPINGS)), st.data())
def test_any_mixture_of_lines_is_read_or_refused(
    lines: list[str], wrapping: str, data: st.DataObject
) -> None:
    text = WRAPPINGS[wrapping]("\n".join(lines))
    cut = data.draw(st.integers(0, len(text)))
    try:
        tree: PciTree = parse_pci_tree(text[cut:])
    except PciTreeError as error:
        assert str(error)
    else:
        assert parse_pci_tree(tree.to_json()).functions == tree.functions


@pytest.mark.parametrize("domain", ["", "0001:"])
def test_a_path_shows_the_bridges_above(domain: str) -> None:
    listing = (
        f"{domain}00:1c.0 PCI bridge: Acme Port\n"
        f"{domain}00:1c.0/02:00.0 PCI bridge: Acme Switch\n"
        f"{domain}00:1c.0/02:00.0/03:01.0 Ethernet controller: Acme\n"
        "\tFlags: bus master, IOMMU group 7\n"
    )
    tree = parse_pci_tree(listing)
    domain = domain or "0000:"
    card = Bdf.parse(f"{domain}03:01.0")
    assert list(map(str, tree.bridges_above(card))) == [f"{domain}02:00.0", f"{domain}00:1c.0"]
    assert (tree.functions[card].name, tree.functions[card].group) == (
        "Ethernet controller: Acme",
        7,
    )
    assert len(tree.functions) == 3


def test_ls_iommu_prints_no_colon_behind_the_class() -> None:
    tree = parse_pci_tree(
        "IOMMU Group  12: 0000:01:00.0 USB controller [0c03] ACME unknown [1022:43d0] (rev 01)\n"
        "        Subsystem: Flux Technology Inc. unknown [1b21:1142]\n"
        "        Kernel driver in use: xhci_hcd\n"
        "IOMMU Group  3: 0000:02:00.0 PCI bridge [0604] ACME 400 Series Port [1022:43c6] (rev 01)\n"
    )
    assert [
        (str(each.bdf), each.class_code, each.device_id, each.group)
        for each in tree.functions.values()
    ] == [("0000:01:00.0", 0xC03, 0x43D0, 12), ("0000:02:00.0", 0x604, 0x43C6, 3)]
