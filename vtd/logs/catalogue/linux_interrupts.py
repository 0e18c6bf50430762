"""Messages of Linux about interrupt remapping (intel irq_remapping.c, the APIC code of x86)."""

from __future__ import annotations

from vtd.logs.catalogue.linux_table import FIRMWARE
from vtd.logs.message import normal, notice, problem

MESSAGES = (
    problem("3.17-", r"This system BIOS has enabled interrupt remapping|"
            r"on a chipset that contains an erratum|"
            r"feature unstable\. +To maintain system stability|"
            r"interrupt remapping is being disabled\. +Please|"
            r"contact your BIOS vendor for an update",
            "an erratum of this chipset (5500, 5520, X58) makes interrupt remapping unstable, so "
            "Linux leaves it off", "firmware updates that turn interrupt remapping off themselves"),
    problem("2.6.32-", r"has no mapping iommu|[Nn]o mapping iommu for ioapic|"
            r"Not all IO-?APIC'?s listed under remapping hardware",
            "an I/O APIC is listed by no unit (rules DMAR-U13, K02), so interrupts can't be "
            "remapped", FIRMWARE),
    problem("2.6.32-", r"Failed to enable (?:irq|IRQ|[Ii]nterrupt|[Ii]ntr)[ -]?remapping|"
            r"enabling Interrupt-remapping failed|"
            r"[Ff]ailed to enable queued,? +invalidation|Failed to enable queued invalidation|"
            r"Failed to setup (?:irq|IRQ) remapping",
            "interrupt remapping is off, so devices can raise any interrupt",
            "earlier lines about it tell why"),
    problem("3.17-",
            r"Compatibility-format IRQs enabled despite|vulnerable to IRQ.injection",
            "a unit lets interrupts in compatibility format pass although remapping is on, so "
            "devices can raise any interrupt", FIRMWARE),
    problem("2.6.32-", r"failed to parse managed IOAPIC/HPET|Exceeded Max (?:IO APICS|HPET blocks)",
            "the I/O APICs and HPETs that the table lists could not all be taken up",
            "vtd dmar show; " + FIRMWARE),
    problem("2.6.32-", r"Failed to set source-id of (?:IOAPIC|HPET)",
            "the table gives no source-id for an I/O APIC or HPET (rules DMAR-U13, U14), so its "
            "interrupts can't be checked", FIRMWARE),
    problem("2.6.32-",
            r"[Cc]an't allocate an IRTE|Failed to allocate IRTE|Unable to allocate \d+ IRTE|"
            r"Requested mask \w+ exceeds the max invalidation handle|"
            r"Failed to recover vector for irq|"
            r"Failed to setup IRQ \d+ for posted mode",
            "an interrupt got no entry in the remapping table: it is full, or too many were asked "
            "for at once", "how many interrupts the devices use: /proc/interrupts"),
    problem("2.6.32-",
            r"[Ff]ailed to allocate (?:pages of order|1M of pages)|IR\d+: failed to allocate",
            "memory ran out for the interrupt-remapping table; interrupt remapping stays off",
            "memory of the machine; crash kernels: crashkernel="),
    notice("2.6.32-", r"[Nn]ot enabl(?:e|ing) interrupt remapping|"
           r"[Nn]ot enabling (?:x2apic, Intr-remapping|interrupt remapping)|"
           r"Skipped enabling intr-remap",
           "interrupt remapping is left off", "the lines around tell why"),
    notice("3.6-", r"x2apic.*opt[ _-]?out(?!:0)|opt[ _-]?out.*x2apic|"
           r"requested that x2apic be disabled|"
           r"This will leave your machine vulnerable to irq-injection",
           "firmware asks to leave x2APIC off (flag X2APIC_OPT_OUT of the table)",
           "intremap=no_x2apic_optout overrides it, where firmware copes"),
    notice("4.4-", r"IRQ remapping doesn't support X2APIC",
           "x2APIC stays off: interrupts are remapped in xAPIC mode, or not at all",
           "whether a line says that IRQ remapping is enabled"),
    notice("2.6.32-", r"doesn't support X2APIC|does not support EIM|EIM not supported|"
           r"IRQ remapping in xapic mode|x2apic not enabled.*(?:remapping|xapic)|"
           r"Not enabling x2apic",
           "interrupts are remapped in xAPIC mode: a unit lacks ECAP.EIM, or firmware opted out"),
    notice("4.4-", r"IRQ remapping was enabled on",
           "interrupt remapping was on already when the kernel started (firmware, kexec)"),
    normal("2.6.32-",
           r"under DRHD base", "an I/O APIC or HPET is under this unit, as the table lists it"),
    normal("3.6-", r"Enabled (?:x2apic and )?(?:IRQ|Interrupt|interrupt)[ -]remapping",
           "interrupt remapping is on"),
    normal("2.6.32", r"alloc irq_2_iommu", "an interrupt was set up that can be remapped"),
    normal("2.6.32-", r"Queued invalidation will be enabled", "interrupt remapping needs it"),
    normal("3.6-5.4", r"Set IRTE entry \(|IOAPIC\[\d+\]: Set .*IRTE",
           "a message for kernel developers (debugging is on)"),
)  # fmt: skip
