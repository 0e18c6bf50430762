"""Boot messages of OpenBSD and NetBSD, and pcidump, name the functions and what bridges are."""

from __future__ import annotations

import pytest

from vtd.dmar.listing import parse_pci_tree

OPENBSD = """\
pci0 at mainbus0 bus 0
pchb0 at pci0 dev 0 function 0 "Intel Core 6G Host" rev 0x07
ppb0 at pci0 dev 1 function 0 "Intel Core 6G PCIE" rev 0x07: msi
pci1 at ppb0 bus 1
em0 at pci1 dev 0 function 0 "Intel 82576" rev 0x01: msi, address 00:1b:21:00:00:00
inteldrm0 at pci0 dev 2 function 0 "Intel HD Graphics 530" rev 0x06
"Intel 100 Series MEI" rev 0x31 at pci0 dev 22 function 0 not configured
"""
NETBSD = """\
[     1.000004] pci0 at mainbus0 bus 0: configuration mode 1
[     1.000004] pchb0 at pci0 dev 0 function 0: Intel Core 6G Host (rev. 0x07)
[     1.000004] ppb0 at pci0 dev 1 function 0: Intel Core 6G PCIe x16 (rev. 0x07)
[     1.000004] pci1 at ppb0 bus 1
[     1.000004] wm0 at pci1 dev 0 function 0: 82576 1000BaseT Ethernet (rev. 0x01)
[     1.000004] i915drmkms0 at pci0 dev 2 function 0: Intel HD Graphics 530 (rev. 0x06)
[     1.000004] Intel 100 Series MEI (rev. 0x31) at pci0 dev 22 function 0 not configured
"""
PCIDUMP = """\
Domain /dev/pci0:
 0:0:0: Intel Core 6G Host
\t0x0000: Vendor ID: 8086, Product ID: 191f
\t0x0008:\tClass: 06 Bridge, Subclass: 00 Host,
\t\tInterface: 00, Revision: 07
\t0x000c: BIST: 00, Header Type: 00, Latency Timer: 00,
 0:1:0: Intel Core 6G PCIE
\t0x0000: Vendor ID: 8086, Product ID: 1901
\t0x0008:\tClass: 06 Bridge, Subclass: 04 PCI,
\t0x000c: BIST: 00, Header Type: 81, Latency Timer: 00,
\t0x0018: Primary Bus: 0, Secondary Bus: 1, Subordinate Bus: 1,
 1:0:0: Intel 82576
\t0x0000: Vendor ID: 8086, Product ID: 10c9
\t0x0008:\tClass: 02 Network, Subclass: 00 Ethernet,
\t0x000c: BIST: 00, Header Type: 80, Latency Timer: 00,
 0:2:0: Intel HD Graphics 530
\t0x0000: Vendor ID: 8086, Product ID: 1912
\t0x0008:\tClass: 03 Display, Subclass: 00 VGA,
 0:22:0: Intel 100 Series MEI
\t0x0000: Vendor ID: 8086, Product ID: a13a
"""


@pytest.mark.parametrize("prefix", ["", "> "])
@pytest.mark.parametrize("listing", [OPENBSD, NETBSD, PCIDUMP])
def test_functions_bridges_and_graphics_are_told(listing: str, prefix: str) -> None:
    quoted = "".join(f"{prefix}{line}\n" for line in listing.splitlines())
    tree = parse_pci_tree(quoted)
    functions = {str(bdf): each for bdf, each in tree.functions.items()}
    assert set(functions) == {
        *("0000:00:00.0", "0000:00:01.0", "0000:01:00.0", "0000:00:02.0", "0000:00:16.0"),
    }
    assert functions["0000:00:01.0"].secondary_bus == 1
    assert (functions["0000:00:01.0"].class_code, functions["0000:00:02.0"].class_code) == (
        *(0x0604, 0x0300),
    )
    assert list(map(str, tree.bridges_above(functions["0000:01:00.0"].bdf))) == ["0000:00:01.0"]
    assert not any(each.express_known for each in functions.values())


def test_pcidump_tells_ids() -> None:
    ids = [(each.vendor_id, each.device_id) for each in parse_pci_tree(PCIDUMP).functions.values()]
    assert ids[:3] == [(0x8086, 0x191F), (0x8086, 0x1901), (0x8086, 0x10C9)]


def test_times_are_no_functions() -> None:
    with pytest.raises(ValueError, match="no function"):
        parse_pci_tree("10:11:2: started\n12:13:4: done\n\t0x0000: Vendor ID: x\n")
