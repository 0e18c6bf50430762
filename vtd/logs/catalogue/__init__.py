"""The messages of kernels and hypervisors about remapping: tables of data, a module per area."""

from __future__ import annotations

from vtd.logs.catalogue import (
    linux_core,
    linux_interrupts,
    linux_mapping,
    linux_sharing,
    linux_table,
    linux_units,
    other_systems,
    typed,
)
from vtd.logs.message import Message

AREAS: dict[str, tuple[Message, ...]] = {
    "What people type: commands and options of modules": typed.FIRST,
    "The DMAR table": linux_table.MESSAGES,
    "Remapping units and their queues": linux_units.MESSAGES,
    "Domains and mappings": linux_mapping.MESSAGES,
    "Interrupt remapping": linux_interrupts.MESSAGES,
    "PASIDs, shared virtual memory and page requests": linux_sharing.MESSAGES,
    "The IOMMU core, and others that speak of it": linux_core.MESSAGES,
    "Other systems": other_systems.MESSAGES,
    "What people type: settings and lists": typed.LAST,
}
"""The messages by area, in the order in which they are tried."""
MESSAGES = tuple(message for area in AREAS.values() for message in area)
