"""The page request interface of a function: groups of requests out, responses in.

VT-d 7.4 to 7.7, PCI Express Page Request Services. Stop markers are left out: a function that stops
using a PASID lets its outstanding groups be answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from devices.capabilities import Pri, PriControl
from devices.dma import (
    READ,
    WRITE,
    DmaPort,
    PageGroupResponse,
    PageRequest,
    Request,
    ResponseCode,
)

PAGE_REQUEST_GROUPS = 512


class PageRequestInterface:
    """What a PRI capability allows to be sent, and what is waiting for a response."""

    def __init__(self, capability: Pri) -> None:
        self.capability = capability
        self._outstanding: dict[int, int] = {}
        self._responses: dict[int, PageGroupResponse] = {}
        if capability.control.on_write is None:
            capability.control.on_write = self._controlled

    @property
    def allocation(self) -> int:
        """Page requests that software allows to be outstanding."""
        return self.capability.allocation.value.allocation

    @property
    def outstanding(self) -> int:
        """Page requests sent and not answered."""
        return sum(self._outstanding.values())

    @property
    def active(self) -> bool:
        """Whether page requests may be sent: enabled, and no response failure noted."""
        return bool(self.capability.control.value.enable and not self.capability.status.value.rf)

    def send(self, port: DmaPort, request: Request, pages: Sequence[int]) -> int | None:
        """Send one group of page requests for ``request``, the last marked so; returns its index.

        None, and nothing sent, if page requests are off, the allocation does not allow that
        many, or every group index is waiting for a response.
        """
        if not self.active or self.outstanding + len(pages) > self.allocation or not pages:
            return None
        busy = self._outstanding.keys() | self._responses.keys()
        group = next((each for each in range(PAGE_REQUEST_GROUPS) if each not in busy), None)
        if group is None:
            return None
        self._outstanding[group] = len(pages)
        for number, page in enumerate(pages, 1):
            port.page_request(
                PageRequest(
                    address=page,
                    read=bool(request.access & READ),
                    write=bool(request.access & WRITE),
                    group_index=group,
                    last=number == len(pages),
                    pasid=request.pasid,
                    privileged=request.privileged,
                )
            )
        return group

    def take_response(self, group: int) -> int | None:
        """The response code of a group, handed out once; None while it is outstanding."""
        response = self._responses.pop(group, None)
        return None if response is None else response.code

    def respond(self, response: PageGroupResponse) -> None:
        """Note the fate of a group; failures and unknown indexes show in the status."""
        status = self.capability.status
        if response.group_index not in self._outstanding:
            status.value = status.value.replace(uprgi=1)
            return
        del self._outstanding[response.group_index]
        self._responses[response.group_index] = response
        if response.code == ResponseCode.RESPONSE_FAILURE:
            status.value = status.value.replace(rf=1)
        self._settle()

    def reset(self) -> None:
        """Forget what is outstanding, and responses nobody took."""
        self._outstanding.clear()
        self._responses.clear()

    def _controlled(self, before: PriControl, after: PriControl) -> PriControl:
        if after.reset and not after.enable:
            self.reset()
        self.capability.control.value = after = after.replace(reset=0)
        self._settle()
        return after

    def _settle(self) -> None:
        """Stopped: no more page requests will be sent and none is outstanding."""
        status = self.capability.status
        stopped = not self.active and not self._outstanding
        status.value = status.value.replace(stopped=stopped)
