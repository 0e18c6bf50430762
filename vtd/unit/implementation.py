"""Registers of the functions that a unit reports, as far as it has room for them (VT-d 11.4)."""

from __future__ import annotations

from vtd.layouts.registers import MtrrCapability
from vtd.unit.monitoring import performance
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_map import overlaps, register_map
from vtd.unit.reporting import virtual_commands


def implementation_registers(capabilities: Capabilities) -> dict[int, int]:
    """Values for the capability registers of the functions that the unit reports.

    Without those of a function for whose registers FRO or IRO leaves no room;
    :func:`without_registers` says which.
    """
    constants, _ = _place_registers(capabilities)
    return constants


def without_registers(capabilities: Capabilities) -> list[str]:
    """Functions that the unit reports, but for whose registers FRO or IRO leaves no room."""
    _, dropped = _place_registers(capabilities)
    return [
        f"11.4: {feature.upper()} is reported, but FRO or IRO leaves no room for its registers"
        for feature in dropped
    ]


def _place_registers(capabilities: Capabilities) -> tuple[dict[int, int], list[str]]:
    """Constants of the functions that have room, and the functions that have none."""
    features, cap, ecap = capabilities.features, capabilities.cap, capabilities.ecap
    constants: dict[int, int] = {}
    dropped = []
    for feature, registers in (
        ("vcs", virtual_commands.capability_registers(pasid="pasid" in features)),
        ("mts", {0x100: int(MtrrCapability.of(wc=True, fix=True, vcnt=10))}),
        ("pms", performance.capability_registers()),
    ):
        more = {**constants, **registers}
        if feature in features and overlaps(register_map(features, cap, ecap, more)):
            dropped.append(feature)
        elif feature in features:
            constants = more
    return constants, dropped
