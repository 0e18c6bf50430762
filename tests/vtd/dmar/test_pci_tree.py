"""PCI trees from lspci text and JSON, and the requester ids that bridges put in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf
from vtd.dmar.listing import parse_pci_tree
from vtd.dmar.pci_tree import PciFunction, PciTree, PciTreeError, parse_address

VERBOSE = """\
00:02.0 VGA compatible controller [0300]: Intel Corporation Graphics (rev 02)
\tControl: I/O+ Mem+ BusMaster+
00:1c.0 PCI bridge [0604]: Intel Corporation Root Port (prog-if 00 [Normal decode])
\tBus: primary=00, secondary=01, subordinate=03, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
01:00.0 PCI bridge [0604]: Bridge to PCI
\tBus: primary=01, secondary=02, subordinate=02, sec-latency=32
\tCapabilities: [70] Express (v1) PCI-Express to PCI/PCI-X Bridge, MSI 00
02:04.0 Multimedia audio controller [0401]: Sound
"""


def config(
    header_type: int,
    class_code: int,
    secondary: int = 0,
    express: int | None = None,
    subordinate: int = 0,
) -> str:
    data = bytearray(64)
    data[0x0A:0x0C] = class_code.to_bytes(2, "little")
    data[0x0E] = header_type
    data[0x19] = secondary
    data[0x1A] = subordinate
    if express is not None:
        data[6] = 0x10
        data[0x34] = 0x40
        data += bytes([0x10, 0, express << 4 | 2, 0])
    return data.hex()


def hex_lines(digits: str) -> str:
    data = bytes.fromhex(digits)
    rows = range(0, len(data), 16)
    return "\n".join(f"{start:02x}: {data[start : start + 16].hex(' ')}" for start in rows)


HEX = f"""\
00:02.0 VGA compatible controller
{hex_lines(config(0, 0x0300))}

00:1c.0 PCI bridge
{hex_lines(config(0x81, 0x0604, 1, express=4))}

01:00.0 PCI bridge
{hex_lines(config(1, 0x0604, 2, express=7))}

02:04.0 Multimedia audio controller
{hex_lines(config(0, 0x0401))}
"""


@pytest.mark.parametrize("text", [VERBOSE, HEX], ids=["-vvv", "-xxxx"])
def test_lspci_output_gives_functions_bridges_and_classes(text: str) -> None:
    tree = parse_pci_tree(text)
    assert [str(bdf) for bdf in tree.functions] == [
        "0000:00:02.0",
        "0000:00:1c.0",
        "0000:01:00.0",
        "0000:02:04.0",
    ]
    assert tree.functions[Bdf.parse("00:02.0")].class_code == 0x0300
    assert not tree.functions[Bdf.parse("00:02.0")].is_bridge
    assert tree.secondary_bus(Bdf.parse("00:1c.0")) == 1
    assert tree.functions[Bdf.parse("00:1c.0")].express_type == PciFunction.ROOT_PORT
    above = tree.bridges_above(Bdf.parse("02:04.0"))
    assert above == [Bdf.parse("01:00.0"), Bdf.parse("00:1c.0")]


def test_a_bridge_from_pci_express_puts_in_its_own_id() -> None:
    tree = parse_pci_tree(VERBOSE)
    assert tree.alias(Bdf.parse("02:04.0")) == Bdf.parse("02:00.0")
    assert tree.alias(Bdf.parse("01:00.0")) is None
    assert tree.alias(Bdf.parse("00:02.0")) is None


def test_a_conventional_bridge_on_a_root_bus_sends_with_its_own_id() -> None:
    bridge = PciFunction(Bdf.parse("00:1e.0"), secondary_bus=5)
    tree = PciTree([bridge, PciFunction(Bdf.parse("05:01.0"))])
    assert tree.alias(Bdf.parse("05:01.0")) == Bdf.parse("00:1e.0")


@pytest.mark.parametrize(
    ("ids", "alias"), [((0x8086, 0x244E), "02:00.0"), ((0x8086, 0x2448), "01:00.0")]
)
def test_bridges_that_do_not_declare_pci_express_are_known_below_a_port(
    ids: tuple[int, int], alias: str
) -> None:
    vendor, device = ids
    port = PciFunction(Bdf.parse("00:1c.0"), secondary_bus=1, express_type=PciFunction.ROOT_PORT)
    bridge = PciFunction(Bdf.parse("01:00.0"), secondary_bus=2, vendor_id=vendor, device_id=device)
    on_the_root_bus = PciFunction(
        Bdf.parse("00:1e.0"), secondary_bus=5, vendor_id=vendor, device_id=device
    )
    tree = PciTree([port, bridge, on_the_root_bus])
    assert tree.alias(Bdf.parse("02:04.0")) == Bdf.parse(alias)
    assert tree.alias(Bdf.parse("05:04.0")) == Bdf.parse("00:1e.0")


def test_a_tree_survives_json() -> None:
    function = PciFunction(Bdf.parse("03:10.0"), "VF", physical_function=Bdf.parse("03:00.0"))
    tree = PciTree([*parse_pci_tree(VERBOSE).functions.values(), function])
    again = parse_pci_tree(tree.to_json())
    assert again.functions == tree.functions
    assert again.physical_function(function.bdf) == Bdf.parse("03:00.0")


def test_json_may_hold_configuration_space() -> None:
    text = f'[{{"bdf": "0000:00:1c.0", "config": "{config(1, 0x0604, 7, express=4)}"}}]'
    assert parse_pci_tree(text).secondary_bus(Bdf.parse("00:1c.0")) == 7


BUS_RANGE = [
    VERBOSE,
    f"00:1c.0 PCI bridge\n{hex_lines(config(1, 0x0604, 1, subordinate=3))}\n"
    f"01:00.0 PCI bridge\n{hex_lines(config(1, 0x0604, 2, subordinate=2))}",
    """[{"bdf": "00:1c.0", "secondary_bus": 1, "subordinate_bus": 3},
        {"bdf": "01:00.0", "secondary_bus": 2, "subordinate_bus": 2}]""",
]


@pytest.mark.parametrize("text", BUS_RANGE, ids=["-vvv", "-xxxx", "JSON"])
def test_a_bus_without_a_bridge_of_its_own_is_below_the_bridge_whose_range_has_it(
    text: str,
) -> None:
    """Such as the further buses of virtual functions, or those kept for hot plug (8.3.3, 8.3.4)."""
    tree = parse_pci_tree(parse_pci_tree(text).to_json())
    assert tree.bridges_above(Bdf.parse("03:00.0")) == [Bdf.parse("00:1c.0")]
    assert tree.bridge_above(Bdf.parse("02:00.0")) == Bdf.parse("01:00.0")
    assert tree.bridge_above(Bdf.parse("04:00.0")) is None
    assert tree.bridge_above(Bdf.parse("0001:03:00.0")) is None


def test_the_nearest_of_nested_bus_ranges_counts() -> None:
    outer = PciFunction(Bdf.parse("00:1c.0"), secondary_bus=1, subordinate_bus=9)
    inner = PciFunction(Bdf.parse("01:00.0"), secondary_bus=2, subordinate_bus=5)
    tree = PciTree([inner, outer])
    assert tree.bridges_above(Bdf.parse("04:00.0")) == [inner.bdf, outer.bdf]
    assert tree.bridges_above(Bdf.parse("07:00.0")) == [outer.bdf]


def test_functions_behind_vmd_count_for_their_endpoint() -> None:
    """Linux numbers their domains from 10000h on; their requests carry the id of the endpoint."""
    behind = "10000:e0:06.0 PCI bridge\n\tBus: primary=e0, secondary=e1, subordinate=e1\n"
    disk = parse_address("10000:e1:00.0")
    first = "0000:00:0e.0 RAID bus controller: Intel Corporation Volume Management Device NVMe\n"
    tree = parse_pci_tree(first + "\tMemory at 80000000 (64-bit) [size=32M]\n" + behind)
    assert tree.physical_function(disk) == Bdf.parse("00:0e.0")
    assert tree.bridge_above(disk) == parse_address("10000:e0:06.0")
    assert tree.segments == {0}
    second = first.replace("00:0e.0", "64:0e.0") + "\tMemory at 90000000 (64-bit) [size=32M]\n"
    both = tree.functions.values()
    unknown = PciTree([*both, *parse_pci_tree(second).functions.values()])
    assert unknown.physical_function(disk) is None
    window = behind + "\tMemory behind bridge: 90100000-901fffff [size=1M]\n"
    told = parse_pci_tree(first + "\tMemory at 80000000 (64-bit) [size=32M]\n" + second + window)
    assert told.physical_function(disk) == Bdf.parse("64:0e.0")


VFS = """\
03:00.0 Ethernet controller: Network card
\tCapabilities: [70] Express (v2) Endpoint, MSI 00
\tCapabilities: [160 v1] Single Root I/O Virtualization (SR-IOV)
\t\tIOVCtl:\tEnable{enable} Migration- Interrupt- MSE+ ARIHierarchy+
\t\tInitial VFs: 4, Total VFs: 4, Number of VFs: {number}, Function Dependency Link: 00
\t\tVF offset: 128, stride: 2, Device ID: 10ca
03:10.2 Ethernet controller: A function
"""


def test_virtual_functions_are_found_by_offset_and_stride() -> None:
    tree = parse_pci_tree(VFS.format(enable="+", number=2))
    owner = Bdf.parse("03:00.0")
    assert tree.physical_function(Bdf.parse("03:10.2")) == owner
    assert tree.physical_function(Bdf.parse("03:10.4")) == owner  # there may be four
    assert tree.physical_function(Bdf.parse("03:10.1")) is None
    assert tree.physical_function(Bdf.parse("03:11.0")) is None
    off = parse_pci_tree(VFS.format(enable="-", number=2))
    assert off.physical_function(Bdf.parse("03:10.2")) is None  # so it is another function


def test_phantom_functions_stand_for_the_function_that_uses_them() -> None:
    card = PciFunction(Bdf.parse("03:00.0"), phantom_bits=2)
    tree = PciTree([card, PciFunction(Bdf.parse("03:01.0"))])
    for number in (2, 4, 6):
        assert tree.physical_function(Bdf.parse(f"03:00.{number}")) == card.bdf
    assert tree.physical_function(Bdf.parse("03:00.1")) is None
    assert tree.physical_function(Bdf.parse("03:01.2")) is None


def test_no_alias_is_claimed_where_the_kind_of_a_bridge_is_not_shown() -> None:
    text = "00:01.0 PCI bridge: Port\n\tBus: primary=00, secondary=01, subordinate=01\n"
    tree = parse_pci_tree(
        text + "\tCapabilities: <access denied>\n01:00.0 Ethernet controller: X\n"
    )
    assert tree.alias(Bdf.parse("01:00.0")) is None
    assert tree.alias_unknown(Bdf.parse("01:00.0")) == Bdf.parse("00:01.0")
    shown = parse_pci_tree(text + "\tStatus: Cap- 66MHz-\n01:00.0 Ethernet controller: X\n")
    assert shown.alias(Bdf.parse("01:00.0")) == Bdf.parse("00:01.0")
    assert shown.alias_unknown(Bdf.parse("01:00.0")) is None


@pytest.mark.parametrize(
    ("address", "ids", "sent"),
    [
        ("07:00.0", (0x1B4B, 0x9128), ["07:00.1"]),
        ("07:00.1", (0x1B4B, 0x9128), []),
        ("0d:00.3", (0x1180, 0xE832), ["0d:00.0"]),
        ("02:1f.0", (0x8086, 0x2264), ["02:10.0", "02:11.0", "02:12.3"]),
        ("02:00.0", (0x1AF4, 0x1000), []),
        ("02:00.0", (None, None), []),
    ],
)
def test_devices_send_with_the_ids_that_linux_knows_of(
    address: str, ids: tuple[int | None, int | None], sent: list[str]
) -> None:
    vendor, device = ids
    function = PciFunction(Bdf.parse(address), vendor_id=vendor, device_id=device)
    assert PciTree([function]).quirk_aliases(function.bdf) == set(map(Bdf.parse, sent))


def test_a_bridge_for_a_whole_bus_sends_with_every_other_id_of_it() -> None:
    tree = PciTree([PciFunction(Bdf.parse("05:00.1"), vendor_id=0x10B5, device_id=0x87B1)])
    ids = tree.quirk_aliases(Bdf.parse("05:00.1"))
    assert len(ids) == 255
    assert {each.source_id.bus for each in ids} == {5}
    assert Bdf.parse("05:00.1") not in ids


def test_the_bridge_nearest_to_the_root_puts_its_id_in_last() -> None:
    tree = PciTree([
        PciFunction(Bdf.parse("00:1c.0"), secondary_bus=1, express_type=PciFunction.ROOT_PORT),
        PciFunction(Bdf.parse("01:00.0"), secondary_bus=2, express_type=PciFunction.TO_PCI_BRIDGE),
        PciFunction(Bdf.parse("02:01.0"), secondary_bus=3),
        PciFunction(Bdf.parse("03:00.0")),
    ])  # fmt: skip
    assert tree.alias(Bdf.parse("03:00.0")) == Bdf.parse("02:00.0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no function found"),
        ("hello", "no function found"),
        ("{", "not JSON"),
        ("{}", "a list is needed"),
        ("[{}]", "function 0: no bdf"),
        ('[{"bdf": "x"}]', "'x'"),
        ('[{"bdf": "00:01.0", "config": "zz"}]', "config is not hexadecimal"),
        ('[{"bdf": "00:01.0", "secondary_bus": "1"}]', "secondary_bus is no number"),
        ('[{"bdf": "00:01.0", "secondary_bus": 256}]', "secondary_bus is no number up to 0xff"),
        ("00:20.0 Bad device number", "device: 0x20"),
    ],
)
def test_text_that_is_no_tree_is_refused(text: str, message: str) -> None:
    with pytest.raises(PciTreeError, match=message):
        parse_pci_tree(text)


@given(st.text("0123456789abcdef:. \n\tBus=", max_size=200), st.sampled_from(["", "[", VERBOSE]))
def test_any_text_is_read_or_refused(text: str, start: str) -> None:
    try:
        tree = parse_pci_tree(start + text)
    except PciTreeError as error:
        assert str(error)
    else:
        for bdf in tree.functions:
            tree.alias(bdf)
            tree.physical_function(bdf)
        assert parse_pci_tree(tree.to_json()).functions == tree.functions
