"""Messages of Linux about PASIDs, shared virtual memory, page requests and nested domains."""

from __future__ import annotations

from vtd.logs.message import normal, notice, problem

_DEVICE = "the driver of the device, and what uses it"

MESSAGES = (
    notice("5.4-", r"SVM disabled, incompatible (?:1GB page capability|paging mode)",
           "the unit and the processor differ in page tables, so processes can't share theirs with "
           "devices; nothing else is concerned"),
    problem("4.4-", r"Invalid page request:|Page request (?:without PASID|for invalid PASID|in "
            r"Privilege)|[Uu]nexpected page request in Privilege Mode|Address is not canonical|"
            r"Execution request not supported|no pending PRQ, drop response|"
            r"iopf (?:with|without) pasid .*aborted",
            "a device asked for a page in a way that can't be answered: a wrong PASID, address or "
            "kind of access", _DEVICE),
    notice("4.4-5.4", r"cannot enable SVM",
           "a driver wanted to share the memory of processes with its device, which no unit, or "
           "one without PASIDs, translates"),
    problem("4.4-4.4", r"Failed to allocate PASID (?:state )?table",
            "memory ran out for PASIDs, so devices can't share the memory of processes",
            "memory of the machine"),
    problem("5.10-", r"PRQ overflow detected",
            "devices asked for pages faster than the kernel answered, and requests were lost",
            _DEVICE),
    normal("5.10-", r"PRQ overflow cleared", "the page request queue goes on"),
    problem("4.4-",
            r"(?:page request queue|iopf queue)$|(?:Failed to (?:allocate|create|request)).*"
            r"(?:page request queue|iopf queue)",
            "the page request queue could not be set up, so devices can't share the memory of "
            "processes", "memory of the machine; kernel version"),
    problem("5.10-6.3", r"No PASID available|Failed A?SID allocation|Failed to alloc ioasid",
            "all PASIDs are in use", _DEVICE),
    problem("5.4-", r"Invalid PASID|IOMMU: .*Unexpected error code|Trying to free unknown IOASID|"
            r"Cannot free active IOASID|Failed to get pasid entry of PASID|"
            r"Failed to set up PASID|SVM bind succeeded with no sdev|Invalid domain page table",
            "the kernel met a PASID or table that can't be: a bug of a driver or of the kernel",
            "kernel version; " + _DEVICE),
    notice("4.4-", r"No (?:first level|second level|nested) translation support|"
           r"No supervisor request support|No extended access flag support|"
           r"No memory type support|[Nn]o 5-level paging support|5-level paging not supported|"
           r"No CPU write protect|Dirty tracking not supported|Domain is not in nesting mode|"
           r"Supervisor PASID (?:not supported|with user provided mm)|"
           r"Limited PASID width|Already bound with PASID|Failed to enable PASID capability|"
           r"VT-d Scalable Mode not enabled|Custom PASID allocator failed|"
           r"Invalid guest address width|Guest PGD .* not supported|"
           r"Invalid stage-1 address width|Adjusted guest address width not compatible|"
           r"s2 domain is not compatible|Failed to attach domain to iommu",
           "a feature of scalable mode that was asked for is not there; the request is refused",
           "ECAP of the unit: vtd caps"),
    normal("5.10-6.3",
           r"Register custom PASID allocator|IOASID allocator|No custom IOASID allocators|"
           r"[Aa]llocator active with outstanding IOASID",
           "how PASIDs are given out"),
    normal("", r"SVM: |page request queue is|PASID .* bound|"
           r"Allocated order \d+ PASID table", "shared virtual memory in use"),
)  # fmt: skip
