"""A driver that gives every invalidation of pages an address mask of 0: wrong on purpose.

``vtd drive python:examples/drivers/small_mask.py:SmallMask`` finds that in a moment. VT-d 6.5.3.2:
a large page may be cached as many small ones, of which this driver removes one.
"""

from vtd.fuzz.own_driver import OwnDriver
from vtd.software.driver import Driver


class _Narrow(Driver):
    def invalidate(self, owed):
        super().invalidate(
            each._replace(descriptor=each.descriptor.replace(am=0))
            if "am" in each.descriptor.FIELDS
            else each
            for each in owed
        )


class SmallMask(OwnDriver):
    """The driver of the project but for that."""

    def make(self):
        """A driver with the mistake."""
        right = super().make()
        right.__class__ = _Narrow
        return right
