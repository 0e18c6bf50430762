"""Interrupts of a function that the client delivers: an eventfd each, and the mask of the pin.

The pin (INTx) is level-triggered: a signal masks it, and when the client unmasks it while it is
still asserted it is signalled again. MSI and MSI-X vectors are signalled and forgotten.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

from vtd.live.messages import IRQ_ACTION, IRQ_DATA, Irq, IrqAction, IrqData
from vtd.live.requests import Descriptor, RequestError


class Interrupts:
    """The eventfds of one connection; ``counts`` says how many vectors there are of each kind.

    ``taken`` is told when the client begins to signal a kind of vectors, and when it ends to.
    """

    def __init__(
        self, counts: Mapping[int, int], taken: Callable[[int, bool], None] = lambda *_: None
    ) -> None:
        self._counts = {int(irq): counts.get(irq, 0) for irq in Irq}
        self._taken = taken
        self._eventfds: dict[tuple[int, int], Descriptor] = {}
        self._level = False
        self._masked = False

    def count(self, index: int) -> int:
        """How many vectors there are of a kind; RequestError if there is no such kind."""
        if index not in self._counts:
            raise RequestError(errno.EINVAL)
        return self._counts[index]

    def set(
        self,
        index: int,
        start: int,
        count: int,
        flags: int,
        data: bytes,
        descriptors: list[Descriptor],
    ) -> None:
        """Carry out a SET_IRQS; what is kept is taken out of ``descriptors``."""
        known = self.count(index)
        if start + count > known or flags & ~(IRQ_DATA | IRQ_ACTION):
            raise RequestError(errno.EINVAL)
        action, kind = flags & IRQ_ACTION, flags & IRQ_DATA
        vectors = range(start, start + count)
        if kind == IrqData.BOOL:
            if len(data) != count:
                raise RequestError(errno.EINVAL)
            vectors_on = [vector for vector, on in zip(vectors, data, strict=True) if on]
        elif data or kind not in (IrqData.NONE, IrqData.EVENTFD):
            raise RequestError(errno.EINVAL)
        else:
            vectors_on = list(vectors)
        if kind == IrqData.EVENTFD:
            self._assign(index, vectors, action, descriptors)
        elif action == IrqAction.TRIGGER and not count:
            self._forget(index, range(known))
            self._taken(index, False)
        else:
            actions: dict[int, Callable[[int, int], None]] = {
                IrqAction.MASK: self._mask,
                IrqAction.UNMASK: self._unmask,
                IrqAction.TRIGGER: self._signal,
            }
            if action not in actions:
                raise RequestError(errno.EINVAL)
            for vector in vectors_on:
                actions[action](index, vector)

    def trigger(self, index: int, vector: int) -> None:
        """A vector of MSI or MSI-X happened."""
        self._signal(index, vector)

    def set_level(self, asserted: bool) -> None:
        """The pin was asserted or is not any more."""
        self._level = asserted
        self._deliver_pin()

    def close(self) -> None:
        """The client is gone."""
        for index, count in self._counts.items():
            self._forget(index, range(count))
            self._taken(index, False)
        self._masked = False

    def _assign(
        self, index: int, vectors: range, action: int, descriptors: list[Descriptor]
    ) -> None:
        """Signal these vectors by these eventfds, or by none if none came."""
        if action == IrqAction.UNMASK and index == Irq.INTX:
            raise RequestError(errno.EOPNOTSUPP)  # the client unmasks by command then
        if action != IrqAction.TRIGGER or len(descriptors) not in (0, len(vectors)):
            raise RequestError(errno.EINVAL)
        self._forget(index, vectors)
        self._eventfds.update(
            ((index, vector), each) for vector, each in zip(vectors, descriptors, strict=False)
        )
        descriptors.clear()
        self._taken(index, any(index == kind for kind, _ in self._eventfds))
        if index == Irq.INTX:
            self._masked = False
            self._deliver_pin()

    def _forget(self, index: int, vectors: range) -> None:
        for vector in vectors:
            known = self._eventfds.pop((index, vector), None)
            if known is not None:
                known.close()

    def _mask(self, index: int, _: int) -> None:
        if index != Irq.INTX:
            raise RequestError(errno.EINVAL)
        self._masked = True

    def _unmask(self, index: int, _: int) -> None:
        if index != Irq.INTX:
            raise RequestError(errno.EINVAL)
        self._masked = False
        self._deliver_pin()

    def _signal(self, index: int, vector: int) -> None:
        eventfd = self._eventfds.get((index, vector))
        if eventfd is not None:
            eventfd.signal()

    def _deliver_pin(self) -> None:
        if self._level and not self._masked and (Irq.INTX, 0) in self._eventfds:
            self._masked = True
            self._signal(Irq.INTX, 0)
