"""Copies of sysfs: the same functions as from lspci, whether links were kept or followed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf
from tests.vtd.commands.test_collect import config
from vtd.dmar.listing.sysfs import is_sysfs, sysfs_functions
from vtd.dmar.pci_tree import PciTree, parse_address

PORT, CARD = "0000:00:1c.0", "0000:01:00.0"


def test_configuration_space_is_read_where_all_of_it_was_readable() -> None:
    tree = PciTree(sysfs_functions({f"{PORT}/config": config(1), f"{CARD}/config": config()}))
    port = tree.functions[Bdf.parse(PORT)]
    assert (port.secondary_bus, port.express_type, port.class_code) == (1, 4, 0x0604)
    assert port.acs_known
    assert tree.bridge_above(Bdf.parse(CARD)) == port.bdf


def test_other_files_stand_in_for_what_an_ordinary_user_can_not_read() -> None:
    files = {
        f"devices/{PORT}/config": config(1)[:64],
        f"devices/{PORT}/vendor": b"0x8086\n",
        f"devices/{CARD}/class": b"0x020000\n",
        f"devices/{CARD}/vendor": b"0x8086\n",
        f"devices/{CARD}/device": b"0x1572\n",
    }
    tree = PciTree(sysfs_functions(files))
    port, card = tree.functions[Bdf.parse(PORT)], tree.functions[Bdf.parse(CARD)]
    assert (port.secondary_bus, port.express_known) == (1, False)
    assert (card.class_code, card.device_id, card.is_bridge) == (0x0200, 0x1572, None)
    assert tree.alias_unknown(card.bdf) == port.bdf


def test_a_virtual_function_names_its_physical_one_by_link_or_by_copy() -> None:
    files = {f"{CARD}/config": config(), "0000:01:10.0/config": config()}
    linked = sysfs_functions(files, {"0000:01:10.0/physfn": f"../{CARD}"})
    followed = sysfs_functions(
        {**files, "0000:01:10.0/physfn/uevent": f"PCI_SLOT_NAME={CARD}\n".encode()}
    )
    for functions in (linked, followed):
        tree = PciTree(functions)
        assert tree.physical_function(Bdf.parse("01:10.0")) == Bdf.parse(CARD)
        assert len(tree.functions) == 2


def test_a_domain_behind_vmd_is_known_by_the_path_of_its_devices() -> None:
    inside = "0000:64:00.5/pci10001:80/10001:80:06.0"
    files = {f"pci0000:64/{inside}/config": config(), "0000:00:0e.0/config": config()}
    tree = PciTree(sysfs_functions(files))
    assert tree.physical_function(parse_address("10001:80:06.0")) == Bdf.parse("64:00.5")


def test_isolation_groups_come_from_the_links() -> None:
    links = {f"{CARD}/iommu_group": "../../../kernel/iommu_groups/17"}
    (card,) = sysfs_functions({f"{CARD}/config": config()}, links)
    assert card.group == 17


@given(
    st.dictionaries(
        st.sampled_from([PORT, CARD, "x", f"{PORT}/physfn"]).flatmap(
            lambda place: st.sampled_from(
                [f"{place}/{name}" for name in ("config", "class", "uevent", "vendor")]
            )
        ),
        st.binary(max_size=300),
        max_size=6,
    )
)
def test_any_files_give_functions(files: dict[str, bytes]) -> None:
    functions = list(sysfs_functions(files))
    assert bool(functions) == is_sysfs(files)
    assert len(PciTree(functions).functions) <= 2
