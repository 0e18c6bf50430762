"""Requests that ask to execute what they read (ER).

Conditions RTA.5 and SPT.5 of Table 30. Left out: execute permissions of first-stage entries, which
revision 4.1 took away; a unit with ECAP_REG.ERS treats the request as the read that it is.
"""

from __future__ import annotations

from collections.abc import Callable

from devices.dma import Request
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.translation.lookup import Lookup, check_mode
from vtd.unit.translation.remapping import Remapping

FORBIDDEN_FROM = 8
"""The major version from which on nobody may ask to execute."""


def check_execute(
    remapping: Remapping, request: Request, find: Callable[[Remapping, Request], Lookup] | None
) -> None:
    """TranslationFault if a request with ER set is to be blocked for that.

    ``find`` leads to the tables of the request; None where none translate it.
    """
    capabilities = remapping.capabilities
    if capabilities.major_version >= FORBIDDEN_FROM:
        check_mode(remapping, has_pasid=True)
        raise TranslationFault(FaultReason.EXECUTE_REQUESTED)
    if not capabilities.ecap.ers and find is not None:
        target, _ = find(remapping, request._replace(privileged=False))  # SPT.5, before SPT.6
        raise TranslationFault(FaultReason.EXECUTE_UNSUPPORTED, target.fpd)
