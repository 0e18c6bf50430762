"""Messages between the unit and device-TLBs: invalidation requests, page group responses."""

from __future__ import annotations

from vtd.descriptors import (
    DeviceTlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)


class DeviceMessages:
    """Devices without a model of a device-TLB: each answers at once."""

    pending = False

    def invalidate(
        self, descriptor: DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor
    ) -> bool:
        """Every device has answered already."""
        return True

    def respond(self, descriptor: PageGroupResponseDescriptor) -> None:
        """No device is waiting for it."""
