"""Who uses which domain: context and PASID entries set up and taken down (VT-d 3.4, 9.3, 9.6).

An entry that is in use is taken down, with its invalidations, before it is set up otherwise. Left
out: host permission tables, and RID_PASID other than 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vtd.layouts.entries import (
    ContextEntry,
    FirstStagePagingMode,
    PasidEntry,
    ScalableContextEntry,
    TranslationType,
)
from vtd.software.domain import FIRST_STAGE, NESTED, SECOND_STAGE, Domain, DomainError
from vtd.software.guidance import RID_PASID, Endpoint, Guidance, Owed, User
from vtd.software.invalidation import Invalidator, in_order
from vtd.software.page_request_handler import PageRequestHandler
from vtd.software.structures import DIRECTORY_SIZE_CODE, PASIDS, Structures
from vtd.unit.registers.capabilities import Capabilities


class Attachments:
    """The functions behind one unit and the domains that they use.

    ``invalidate`` carries out what is owed and waits for it.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        structures: Structures,
        guidance: Guidance,
        invalidator: Invalidator,
        invalidate: Callable[[Iterable[Owed]], None],
    ) -> None:
        self.capabilities = capabilities
        self.structures = structures
        self.guidance = guidance
        self.page_requests: PageRequestHandler | None = None
        """Who answers page requests, if anybody does."""
        self.endpoints: dict[int, Endpoint] = {}
        """The functions that have a context entry, by source-id."""
        self._invalidator = invalidator
        self.invalidate = invalidate
        self._users: dict[tuple[int, int | None], tuple[User, Domain]] = {}

    def attach(self, endpoint: Endpoint, domain: Domain, pasid: int | None = None) -> None:
        """Have a function use a domain, for requests with ``pasid`` or for those without.

        Its device may use its device-TLB, and ask for pages, once this returns. DomainError if it
        has a domain for these requests already.
        """
        source_id = endpoint.source_id
        self._check_attachment(endpoint, domain, pasid)
        if self.structures.add_context_table(source_id):
            self.invalidate(self.guidance.root_entry_added())
        user = User(endpoint, pasid, domain.domain_id, domain.kind)
        if not self.structures.scalable:
            self.endpoints[source_id] = endpoint
            self._add_user(user, domain)
            entry = self._context_entry(user, domain)
            self.structures.store(self.structures.context_entry(source_id), entry)
            self.invalidate(self.guidance.context_entry_added(endpoint))
            return
        if source_id not in self.endpoints:
            self.add_endpoint(endpoint)
        if self.structures.add_pasid_table(source_id, user.table_pasid):
            self.invalidate(self.guidance.pasid_directory_entry_added())
        self._add_user(user, domain)
        at = self.structures.pasid_entry(source_id, user.table_pasid)
        self.structures.store(at, self.pasid_entry(domain))
        self.invalidate(self.guidance.pasid_entry_added(user))

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Give a function a scalable-mode context entry, with an empty PASID directory."""
        entry = ScalableContextEntry.of(
            p=True,
            dte=endpoint.ats,
            pre=endpoint.page_requests,
            paside="pasid" in self.capabilities.features,
            pdts=DIRECTORY_SIZE_CODE,
            pasiddirptr=self.structures.new_table(),
        )
        self.endpoints[endpoint.source_id] = endpoint
        self.structures.store(self.structures.context_entry(endpoint.source_id), entry)
        self.invalidate(self.guidance.context_entry_added(endpoint))

    def domain_of(self, source_id: int, pasid: int | None = None) -> Domain:
        """The domain of requests of a function with or without PASID; DomainError if none."""
        if (source_id, pasid) not in self._users:
            raise DomainError(f"source-id {source_id:#x}, PASID {pasid}: not attached")
        _, domain = self._users[source_id, pasid]
        return domain

    def detach(self, source_id: int, pasid: int | None = None) -> None:
        """Take the domain away from a function, or from one PASID of it.

        When this returns nothing of it is cached, and no page request of it is waiting (7.10).
        """
        self.domain_of(source_id, pasid)
        user, domain = self._users.pop((source_id, pasid))
        domain.users.remove(user)
        if not self.structures.scalable:
            self.structures.withdraw(self.structures.context_entry(source_id))
            del self.endpoints[source_id]
            owed = self.guidance.context_entry_removed(user.endpoint, [user.domain_id])
        else:
            at = self.structures.pasid_entry(source_id, user.table_pasid)
            self.structures.withdraw(at)
            owed = self.guidance.pasid_entry_removed(user)
        if self.page_requests is None or not user.endpoint.ats:
            self.invalidate(owed)
        else:
            self._invalidator.drain(lambda: self.invalidate(owed))
            self.page_requests.service()

    def release(self, source_id: int) -> None:
        """Remove the context entry of a function all of whose PASIDs are detached."""
        if any(user.endpoint.source_id == source_id for user, _ in self._users.values()):
            raise DomainError(f"source-id {source_id:#x}: still attached")
        endpoint = self.endpoints.pop(source_id)
        self._invalidator.quarantine(
            self.structures.frames, self.structures.pasid_frames(source_id)
        )
        self.structures.withdraw(self.structures.context_entry(source_id))
        self.invalidate(self.guidance.context_entry_removed(endpoint, []))

    def _check_attachment(self, endpoint: Endpoint, domain: Domain, pasid: int | None) -> None:
        source_id, features = endpoint.source_id, self.capabilities.features
        if domain.closed:
            raise DomainError(f"domain {domain.domain_id} is closed")
        if (source_id, pasid) in self._users:
            raise DomainError(f"source-id {source_id:#x}, PASID {pasid}: attached already")
        if endpoint.ats and (
            "dt" not in features or (not self.structures.scalable and not domain.levels)
        ):
            raise DomainError("ats: the unit has no device-TLBs, or none for pass-through (9.3)")
        if self.endpoints.get(source_id, endpoint) != endpoint:
            raise DomainError(f"source-id {source_id:#x}: release it before its ATS changes")
        if pasid is None:
            return
        if not self.structures.scalable or "pasid" not in features:
            raise DomainError("pasid: the unit has none, or is in legacy mode")
        if not RID_PASID < pasid < min(PASIDS, 1 << self.capabilities.pasid_width):
            raise DomainError(f"pasid: {pasid} is not in reach, or that of requests without one")

    def _add_user(self, user: User, domain: Domain) -> None:
        self._users[user.endpoint.source_id, user.pasid] = user, domain
        domain.users.append(user)

    def _context_entry(self, user: User, domain: Domain) -> ContextEntry:
        entry = ContextEntry.of(p=True, did=domain.domain_id)
        if not domain.levels:  # 9.3: AW as the unit's largest, though no table is walked
            width = max(self.capabilities.address_widths)
            return entry.replace(tt=TranslationType.PASS_THROUGH, aw=width)
        kind = TranslationType.DEVICE_TLB if user.endpoint.ats else TranslationType.SECOND_STAGE
        return entry.replace(tt=kind, aw=domain.address_width, ssptptr=domain.root)

    def pasid_entry(self, domain: Domain) -> PasidEntry:
        """The PASID table entry that leads to a domain (9.6)."""
        entry = PasidEntry.of(p=True, pgtt=domain.kind, did=domain.domain_id)
        if "smpwcs" in self.capabilities.features:
            entry = entry.replace(pwsnp=True)
        second = domain if domain.kind is SECOND_STAGE else domain.second
        if second is not None:
            entry = entry.replace(
                aw=second.address_width, ssptptr=second.root, ssade=second.second_stage_dirty
            )
        if domain.kind in (FIRST_STAGE, NESTED):
            mode = FirstStagePagingMode(domain.levels - 4)
            entry = entry.replace(fsptptr=domain.root, fspm=mode)
        return entry

    def set_second_stage_dirty(self, domain: Domain, *, enabled: bool) -> None:
        """SSADE of every entry that leads to a second stage, which have to agree (6.2.3.1)."""
        if domain.kind is not SECOND_STAGE or not self.structures.scalable:
            raise DomainError("dirty tracking: for second stages in scalable mode")
        if "ssads" not in self.capabilities.features:
            raise DomainError("dirty tracking: the unit has none (ECAP_REG.SSADS)")
        if domain.second_stage_dirty == enabled:
            return
        domain.second_stage_dirty = enabled
        owed: list[Owed] = []
        for using in (domain, *domain.nested):
            for user in using.users:
                at = self.structures.pasid_entry(user.endpoint.source_id, user.table_pasid)
                self.structures.replace(at, self.pasid_entry(using))
                owed += self.guidance.ssade_changed(user, enabled=enabled)
        self.invalidate(in_order(owed))
