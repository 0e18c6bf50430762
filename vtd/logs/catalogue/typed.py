"""Commands and settings that people post between the lines of a log: nothing that a kernel says."""

from __future__ import annotations

from vtd.logs.message import normal

_TOOLS = (
    r"(?:dmesg|journalctl|[ez]?grep|rg|cat|less|find|ls|for \w+ in|echo|printf|nano|vim?|sed|"
    r"acpidump|iasl|sysctl|lsmod|modinfo|modprobe|lspci|virsh|virt-host-validate|xl|pvesh|qm|grubby|uname|"
    r"update-grub|proxmox-boot-tool|kldload|pciconf|esxcli|dmidecode|fwupdmgr|tail|head|awk) "
)
_PROMPT = r"(?:[\w.\[-]+@[^#$%>]{1,80}[#$%>]|(?:ba)?sh-[\d.]+[#$]|(?<!\S)[#$%+]) ?"

FIRST = (
    normal("", rf"^(?!.*\[ *\d+\.\d{{6}}\])[\s>|*]*(?:{_PROMPT}(?:sudo )?{_TOOLS}|"
           r"(?:sudo )?(?:dmesg|journalctl|lsmod|lspci|acpidump)\b[^:]*\| *[ez]?grep |"
           r"(?:for \w+ in|echo) [\"$'/])",
           "a command that somebody typed, not a message; what it printed may follow"),
    normal("", r"^\W*options \w+ \w+=",
           "a module option that somebody sets, not a message"),
)  # fmt: skip
"""What holds words of messages, so it is tried before them."""
LAST = (
    normal("", r"(?<![\w.])(?:(?:intel_|amd_)?iommu|intremap|iommu\.\w+|vfio_iommu\w+)=\w",
           "options of the kernel command line, set or asked for"),
    normal("", r"^\W*CONFIG_\w+(?:=| is not set)", "an option the kernel was built with"),
    normal("", r"^\W*\w+ +\d+ +\d+(?: [\w,]+)?$|^\W*vfio_\w+$|"
           r"^\s*Kernel (?:modules|driver in use): ",
           "a module of the kernel, as lists name it"),
    normal("", r"^[\s>|*]*[bcdlps-](?:[r-][w-][xsStT-]){3}[.+]? |^[\s>|*]*/(?:sys|dev)/\S+$",
           "a file, as ls lists it"),
    normal("", r"<(?:iommu|driver) \w+=['\"]", "a setting of a virtual machine (libvirt)"),
    normal("", r"IOMMU \S+: Root Table Address: ?0?x?[0-9a-f]|\bPASID_table_entry\b|\bIOVA_PFN\b|"
           r"(?:Remapped|Posted) Interrupt supported on IOMMU|Register Base Address: |"
           r"Invalidation queue on IOMMU: ",
           "a dump of Linux's debugfs, which vtd mappings, walk, irte and caps read"),
    normal("", r"\b0x[0-9a-f]{16} 0x[0-9a-f]{16} (?:direct(?:-relaxable)?|reserved|msi)\b",
           "addresses that Linux reserves for the devices of a group; direct ones are of regions "
           "of the table (RMRR)"),
    normal("", r"\bDMAR-MSI\b", "the interrupt by which a unit reports faults (/proc/interrupts)"),
)  # fmt: skip
