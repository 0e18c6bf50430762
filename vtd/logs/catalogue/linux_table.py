"""Messages of Linux about the DMAR table and the firmware that made it (dmar.c, intel iommu.c)."""

from __future__ import annotations

from vtd.logs.message import normal, notice, problem

FIRMWARE = "update the firmware; check the table with vtd dmar validate"

MESSAGES = (
    problem("2.6.32-2.6.32", r"reported at address (?:0\b|zero)",
            "the table gives a unit register base 0 (rule DMAR-U01); Linux turns all remapping off",
            FIRMWARE),
    problem("2.6.32-2.6.32", r"returns all ones",
            "no unit answers at the address the table gives: the base is wrong, or firmware has "
            "switched the unit off (rule DMAR-K08); Linux turns all remapping off",
            "firmware setup: is VT-d on, were tables of another board reused; " + FIRMWARE),
    problem("5.10-", r"No firmware reserved region can cover this RMRR",
            "the memory map does not reserve the region, so Linux may use the memory that devices "
            "of this RMRR write to (rule DMAR-K01); the region is used anyway",
            "vtd dmar rmrr --memory-map /proc/iomem; " + FIRMWARE),
    problem("5.10-", r"bad RMRR",
            "the region is unaligned, empty or not reserved (rules DMAR-R01 to R03, K01); Linux "
            "keeps it and taints the kernel", FIRMWARE),
    problem("2.6.32-4.4", r"RMRR ends before it starts",
            "a reserved region has a limit below its base (rule DMAR-R03); it is not mapped, so "
            "its device may fault", FIRMWARE),
    problem("2.6.32-4.4", r"RMRR exceeds permitted address width",
            "a reserved region lies beyond the width of its unit (rule DMAR-R06); it is not "
            "mapped, so its device may fault", FIRMWARE),
    problem("3.17-", r"RMRR entry for device .* is broken",
            "the scope entry gives the device's own bus instead of the path from the root bus; "
            "Linux works around it", FIRMWARE),
    problem("3.17-", r"ANDD object name is not NUL-terminated",
            "a declared ACPI object has a broken name (rule DMAR-N01); remapping stays off",
            FIRMWARE),
    problem("3.17-", r"Failed to (?:find handle|get device) for ACPI object",
            "the table declares an ACPI device (ANDD) that the namespace does not have "
            "(rules DMAR-N03, K07)", FIRMWARE),
    problem("3.17-", r"No IOMMU scope found for ANDD",
            "a declared ACPI device is under no unit, so its DMA is not remapped (rule DMAR-N05)",
            FIRMWARE),
    problem("5.4-", r"ACPI name space devices didn't probe correctly",
            "devices that the table declares (ANDD) could not be set up for remapping",
            "earlier lines tell which; " + FIRMWARE),
    problem("2.6.32-", r"Record passes table end|Invalid 0-length structure",
            "a structure of the table has a wrong length (rules DMAR-S02, S04); remapping stays "
            "off", FIRMWARE),
    problem("2.6.24-", r"Invalid DMAR haw",
            "the host address width is below 12 bits (rule DMAR-H07); remapping stays off",
            FIRMWARE),
    problem("2.6.24-", r"No DRHD structure found|No DMAR devices found",
            "the table has no usable remapping unit (rule DMAR-H12), or VT-d is off in firmware "
            "setup", "firmware setup: VT-d; " + FIRMWARE),
    problem("4.4-", r"No DRHD structures in buffer returned by _DSM",
            "firmware names no unit for hot-plugged hardware, which stays without remapping",
            "firmware updates"),
    notice("4.4-", r"Failed to locate _DSM method",
           "hot-plugged hardware has no method that would name its unit"),
    problem("3.17-", r"RHSA refers to non-existent DMAR unit",
            "an affinity structure names a register base that no unit has (rule DMAR-P01)",
            FIRMWARE),
    problem("2.6.24-", r"Device scope type does not match|Unsupported device scope",
            "a scope entry names a device of another kind (rules DMAR-D06, K06); it is ignored",
            "vtd dmar validate --lspci; " + FIRMWARE),
    notice("2.6.24-3.6", r"Device scope (?:bus|device) \[[^\]]*\] not found",
           "a scope entry names a device that is not there, perhaps switched off in firmware "
           "setup; it is ignored", "vtd dmar validate --lspci"),
    problem("2.6.24-", r"[Pp]arse DMAR table failure",
            "Linux refused the table, so DMA and interrupt remapping stay off; an earlier line "
            "tells why", FIRMWARE),
    problem("2.6.24-", r"Unable to map DMAR", "the table could not be read; remapping stays off",
            FIRMWARE),
    notice("2.6.24-", r"[Uu]nknown DMAR structure|No handler for DMAR structure type",
           "the table has a structure of a type this kernel does not know (rule DMAR-S07)"),
    problem("3.6-", r"[Cc]an't validate(?: DRHD address)?: ",
            "the registers of a unit can't be reached, so Linux turns all remapping off", FIRMWARE),
    problem("3.17-5.10", r"allocating notify_info",
            "memory ran out, so a device was not put under its unit", "memory of the machine"),
    problem("3.6-", r"BIOS assigned incorrect VT-d unit",
            "firmware put the I/OAT engine (QuickData) under a unit that does not translate it",
            FIRMWARE),
    problem("2.6.32-", r"DMA routed to ISOCH DMAR unit but no TLB space",
            "firmware routes the sound device through a unit without TLB entries, where it hangs; "
            "Linux maps it one to one", FIRMWARE),
    notice("2.6.32-", r"Recommended TLB entries for ISOCH",
           "firmware gives the unit of the sound device fewer TLB entries than it needs"),
    normal("2.6.32-", r"BIOS vendor: .*; Ver: ", "the firmware that the message before is about"),
    normal("2.6.24-", r"Host address width", "address bits of the platform, from the table"),
    normal("2.6.24-", r"DRHD (?:\(flags: \w+\))?base:", "a remapping unit of the table"),
    normal("2.6.24-", r"RMRR base:", "a reserved memory region of the table"),
    normal("2.6.32-", r"ATSR flags:", "root ports with ATS, from the table"),
    normal("6.1-", r"SATC flags:", "integrated devices with translation caches, from the table"),
    normal("", r"SIDP (?:flags|address):", "properties of integrated devices, from the table"),
    normal("2.6.32-", r"RHSA base:", "affinity of a unit to a memory node, from the table"),
    normal("3.17-", r"ANDD device:", "an ACPI device declared by the table"),
    normal("3.17-", r"ACPI device .* under DMAR at", "an ACPI device is put under its unit"),
    normal("2.6.24-",
           r"No (?:RMRR|ATSR|SATC|SIDP) found", "the table has no such structure; it need not"),
    normal("", r"ACPI: (?:Reserving )?DMAR\b", "where the table is, and who made it"),
)  # fmt: skip
