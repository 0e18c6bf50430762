"""The bugs that ``scripts/mutants`` plants: those that real units and drivers had, and their kin.

Each changes one text of one file. What finds it is a property of ``vtd fuzz`` on the changed
engine; with ``target:`` before it, the changed engine as a program outside that the intact one is
compared with; or ``vectors``, the recorded scenarios.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A change of one text in one file, and what may find it."""

    name: str
    file: str
    old: str
    new: str
    found_by: str


QUEUE = "vtd/unit/queues/invalidation.py"
CACHES = "vtd/unit/caching/caches.py"
FAULTS = "vtd/unit/reporting/fault_recording.py"
INTERRUPTS = "vtd/unit/interrupts/interrupt_remapping.py"
TRANSLATE = "vtd/unit/translation/translate.py"
LOOKUP = "vtd/unit/translation/lookup.py"
ATS = "vtd/unit/translation/ats.py"
PAGE_REQUESTS = "vtd/unit/queues/page_requests.py"
UNIT = "vtd/unit/unit.py"
PROTOCOL, REQUESTS = "target:protocol", "target:requests"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "IOTLB key without the PASID",
        "vtd/unit/caching/iotlb.py",
        "get(kind)\n        if space is None:\n            space = self._spaces[kind]",
        "get(kind := (kind[0], None, kind[2]))\n"
        "        if space is None:\n            space = self._spaces[kind]",
        "driver",
    ),
    Mutant(
        "inverted function mask",
        "vtd/unit/caching/caches.py",
        "kept = 0xFFFF & ~FUNCTION_MASKS[function_mask]",
        "kept = 0xFFF8 | FUNCTION_MASKS[function_mask]",
        "driver",
    ),
    Mutant(
        "reserved masks of 2 MiB and 1 GiB pages swapped",
        "pagetables/geometry.py",
        "21: second_stage.SecondStagePage2M,\n        30: second_stage.SecondStagePage1G,",
        "21: second_stage.SecondStagePage1G,\n        30: second_stage.SecondStagePage2M,",
        "tables",
    ),
    Mutant(
        "index not checked against the interrupt table",
        "vtd/unit/interrupts/interrupt_remapping.py",
        "if index >= 2 << self.table.s or beyond_width:",
        "if beyond_width:",
        "interrupts",
    ),
    Mutant(
        "present bit of the PASID entry ignored",
        "vtd/unit/translation/lookup.py",
        "if not entry.p:\n        raise TranslationFault(FaultReason.PASID_NOT_PRESENT",
        "if False:\n        raise TranslationFault(FaultReason.PASID_NOT_PRESENT",
        "tables",
    ),
    Mutant(
        "end of an invalidated range off by one page",
        "vtd/unit/queues/invalidation.py",
        "return start, start + size",
        "return start, start + max(size - 0x1000, 0x1000)",
        "driver",
    ),
    Mutant(
        "fault record: source-id and reason packed the wrong way round",
        "vtd/unit/reporting/fault_recording.py",
        "| reason << _FR\n            | source_id << _SID",
        "| (source_id & 0xFF) << _FR\n            | reason << _SID",
        "tables",
    ),
    Mutant(
        "descriptors taken for 128 bits although DW is set",
        "vtd/unit/queues/invalidation.py",
        "size = 32 if queue.dw else 16",
        "size = 16",
        "driver",
    ),
    Mutant(
        "head moves on by 128 bits although DW is set",
        "vtd/unit/queues/invalidation.py",
        "(head + size) % (0x1000 << queue.qs)",
        "(head + 16) % (0x1000 << queue.qs)",
        "driver",
    ),
    Mutant(
        "PASID cache keeps an entry that moved to another domain",
        "vtd/unit/caching/caches.py",
        "self.pasid.remove(lambda key, entry: key[1] == pasid and entry.domain_id == domain_id)",
        "self.pasid.remove(lambda key, entry: False)",
        "driver",
    ),
    Mutant(
        "interrupt entry cache is not invalidated",
        "vtd/unit/interrupts/interrupt_remapping.py",
        "self.cache.remove(lambda key, _: index <= key < index + count)",
        "self.cache.remove(lambda key, _: False)",
        "driver",
    ),
    Mutant(
        "a superpage survives the invalidation of a part of it",
        "vtd/unit/caching/iotlb.py",
        "first, last = start >> shift, end - 1 >> shift",
        "first, last = -(-start >> shift), end - 1 >> shift",
        "vectors",
    ),
    Mutant(
        "domain-id used again meets old translations",
        "vtd/unit/caching/caches.py",
        "self.iotlb.remove(domain_id)",
        "self.iotlb.remove(domain_id, lambda tags: False)",
        "driver",
    ),
    Mutant(
        "page invalidation keeps paging-structure entries whatever IH says",
        "vtd/unit/caching/caches.py",
        "if not hint:\n            _remove_tables(self.second_stage,",
        "if False:\n            _remove_tables(self.second_stage,",
        "driver",
    ),
    Mutant(
        "invalidation of the second stage keeps nested paging-structure entries",
        "vtd/unit/caching/caches.py",
        "if len(self.first_stage):\n            self.first_stage.remove(",
        "if False:\n            self.first_stage.remove(",
        "driver",
    ),
    Mutant(
        "context cache: domain of an entry not compared",
        "vtd/unit/caching/caches.py",
        "key & kept == source_id & kept and entry.domain_id in (None, domain_id)",
        "key & kept == source_id & kept and entry.domain_id is None",
        "driver",
    ),
    Mutant(
        "page size taken in 32 bits",
        "pagetables/walk.py",
        "FRAME_NUMBER = (1 << 40) - 1",
        "FRAME_NUMBER = (1 << 11) - 1",
        "tables",
    ),
    Mutant(
        "a write needs only the rights of the last level",
        "pagetables/walk.py",
        "            rights &= entry\n",
        "            rights = entry & geometry.rights\n",
        "tables",
    ),
    Mutant(
        "FPD of the context entry does not reach the fault",
        "vtd/unit/translation/lookup.py",
        "fpd = context.fpd or directory.fpd",
        "fpd = directory.fpd",
        "tables",
    ),
    Mutant(
        "dirty flag not set by the first write",
        "vtd/unit/translation/translate.py",
        "rights = without_dirty(rights)\n    except",
        "pass\n    except",
        "flags",
    ),
    Mutant(
        "INVEPT keeps guest-physical mappings",
        "vtd/guest/x86/mappings.py",
        "if ept in (None, tag):",
        "if False:",
        "guest",
    ),
    Mutant(
        "EPT dirty flag not set by a write after a read",
        "vtd/guest/x86/translation.py",
        "granted &= ~WRITE",
        "pass",
        "guest",
    ),
    Mutant(
        "EPT: a write-only page is a violation, not a misconfiguration",
        "vtd/guest/x86/ept.py",
        "if entry & WRITE and not entry & READ:",
        "if False:",
        "ept",
    ),
    Mutant(
        "VM entry does not look at the guest's state",
        "vtd/guest/x86/entry.py",
        "in _GROUPS:",
        "in _GROUPS[:2]:",
        "vmcs",
    ),
    Mutant(
        "an accelerated bsw forgets the registers",
        "vtd/guest/itanium/optimizations.py",
        "current.vpd.switch_bank(cpu.bank, bank, cpu.vpsr)",
        "cpu.vpsr.replace(bn=bank)",
        "vpd",
    ),
    Mutant(
        "an accelerated read of IVR is always spurious",
        "vtd/guest/itanium/optimizations.py",
        "spurious = current.vac.a_int and not unmasked(cpu.kept.vhpi, ENABLED, _tpr(cpu))",
        "spurious = current.vac.a_int",
        "vpd",
    ),
    Mutant(
        "a wait descriptor causes no event",
        QUEUE,
        "if descriptor.if_ and not",
        "if False and not",
        PROTOCOL,
    ),
    Mutant(
        "a wait descriptor writes no status",
        QUEUE,
        "        if descriptor.sw:\n",
        "        if False:\n",
        PROTOCOL,
    ),
    Mutant(
        "reserved bits of descriptors are not looked at",
        QUEUE,
        "if data >> record.WIDTH or data & record.reserved_mask(",
        "if False and data & record.reserved_mask(",
        PROTOCOL,
    ),
    Mutant(
        "a tail just beyond the queue is taken",
        QUEUE,
        "if tail >= 0x1000 << queue.qs:",
        "if tail > 0x1000 << queue.qs:",
        PROTOCOL,
    ),
    Mutant(
        "the queue wraps at 4 KiB whatever its size",
        QUEUE,
        "% (0x1000 << queue.qs)  #",
        "% 0x1000  #",
        PROTOCOL,
    ),
    Mutant(
        "the index mask of iec_inv is ignored",
        QUEUE,
        "interrupt_cache.invalidate(descriptor.iidx & -count, count)",
        "interrupt_cache.invalidate(descriptor.iidx, 1)",
        PROTOCOL,
    ),
    Mutant(
        "the index of iec_inv is not aligned to its mask",
        QUEUE,
        "interrupt_cache.invalidate(descriptor.iidx & -count, count)",
        "interrupt_cache.invalidate(descriptor.iidx, count)",
        PROTOCOL,
    ),
    Mutant(
        "address masks work up to 2 MiB",
        QUEUE,
        "    size = 0x1000 << mask\n    start",
        "    size = 0x1000 << min(mask, 9)\n    start",
        "driver",
    ),
    Mutant(
        "an address mask above MAMV is taken", QUEUE, "if mask > cap.mamv:", "if False:", PROTOCOL
    ),
    Mutant(
        "a reserved granularity of cc_inv is taken",
        QUEUE,
        "case ContextGranularity.RESERVED_0:\n            return False",
        "case ContextGranularity.RESERVED_0:\n            return True",
        PROTOCOL,
    ),
    Mutant(
        "a descriptor of a type of the other mode is carried out",
        QUEUE,
        "if number not in VALID_TYPES[mode, size * 8]:",
        "if number not in DESCRIPTORS:",
        "vectors",
    ),
    Mutant(
        "the queue goes on behind an error",
        QUEUE,
        "and not registers[FaultStatus] & _STOPPED\n",
        "\n",
        "vectors",
    ),
    Mutant(
        "no fault event",
        FAULTS,
        "        if not status & _PENDING:\n            self._event.trigger()",
        "        if not status & _PENDING:\n            pass",
        PROTOCOL,
    ),
    Mutant(
        "FRI stays 0",
        FAULTS,
        "self.raise_status(ppf=True, fri=index)",
        "self.raise_status(ppf=True, fri=0)",
        PROTOCOL,
    ),
    Mutant(
        "an overflow is not reported",
        FAULTS,
        "registers[FaultStatus] = registers[FaultStatus].replace(pfo=True)\n",
        "pass\n",
        "vectors",
    ),
    Mutant(
        "every fault goes to the first record",
        FAULTS,
        "self.next_index = (index + 1) % len(self._records)",
        "self.next_index = 0",
        "tables",
    ),
    Mutant(
        "PPF stays set", FAULTS, "status.replace(ppf=pending)", "status.replace(ppf=True)", "tables"
    ),
    Mutant(
        "a 32-bit destination loses its upper half",
        INTERRUPTS,
        "return field if self.table.eime",
        "return field & 0xFFFF if self.table.eime",
        PROTOCOL,
    ),
    Mutant("SN is not looked at", INTERRUPTS, "(entry.urg or not before.sn)", "True", "interrupts"),
    Mutant(
        "URG is not looked at",
        INTERRUPTS,
        "(entry.urg or not before.sn)",
        "not before.sn",
        "vectors",
    ),
    Mutant(
        "ON is not looked at",
        INTERRUPTS,
        "notify = not before.on and (",
        "notify = (",
        "interrupts",
    ),
    Mutant(
        "vectors above 127 are posted in the lower half",
        INTERRUPTS,
        "1 << entry.vv",
        "1 << (entry.vv & 0x7F)",
        "interrupts",
    ),
    Mutant(
        "the requester is compared without SQ",
        INTERRUPTS,
        "& ~IGNORED_FUNCTION_BITS[entry.sq]",
        "& 0xFFFF",
        "vectors",
    ),
    Mutant(
        "the last bus of a range is left out",
        INTERRUPTS,
        "<= source_id >> 8 <= buses.last",
        "<= source_id >> 8 < buses.last",
        "vectors",
    ),
    Mutant(
        "reserved bits of interrupt entries are not looked at",
        INTERRUPTS,
        "            self._has_reserved_bits(entry)\n            or (",
        "            False\n            or (",
        "interrupts",
    ),
    Mutant(
        "the subhandle is not added",
        INTERRUPTS,
        "index = rules.interrupt_index(self._departures, index, subhandle)",
        "pass",
        "interrupts",
    ),
    Mutant(
        "a cached interrupt entry serves any requester",
        INTERRUPTS,
        "            else:\n                self._verify_source(cached, source_id, index)\n",
        "            else:\n                pass\n",
        "interrupts",
    ),
    Mutant(
        "IRTE of a kept table: the old pointer serves on",
        INTERRUPTS,
        "            self.table, self.new_table = self.new_table, None",
        "            self.new_table = None",
        PROTOCOL,
    ),
    Mutant(
        "caches are kept over SRTP although ESRTPS is reported",
        UNIT,
        '        if "esrtps" in self.capabilities.features:\n            self.caches.clear()',
        "        if False:\n            self.caches.clear()",
        "driver",
    ),
    Mutant(
        "caches are kept while translation is off",
        UNIT,
        'if not enabled and "smts" in self.capabilities.features:',
        "if False:",
        "driver",
    ),
    Mutant(
        "upper-half addresses are not invalidated",
        "vtd/unit/caching/iotlb.py",
        "        low += END - (1 << width)",
        "        pass",
        "driver",
    ),
    Mutant(
        "a half of a register that is written alone is lost",
        "vtd/unit/registers/register_file.py",
        "        base, shift, covered, _, writable, clearable = window\n        raw",
        "        base, shift, covered, _, writable, clearable = window\n"
        "        if shift:\n            return\n        raw",
        PROTOCOL,
    ),
    Mutant(
        "accessed flags of tables are not set",
        "pagetables/walk.py",
        "            if follow:\n",
        "            if visit is not None:\n",
        "flags",
    ),
    Mutant(
        "dirty flags are set by reads",
        TRANSLATE,
        "                if access & WRITE:\n                    settled",
        "                if access:\n                    settled",
        "flags",
    ),
    Mutant(
        "a zero-length read needs R although ZLR is reported",
        TRANSLATE,
        "if request.zero_length_read and rights & WRITE and remapping.capabilities.cap.zlr:",
        "if False:",
        "vectors",
    ),
    Mutant(
        "a zero-length read needs no R although ZLR is not reported",
        TRANSLATE,
        "rights & WRITE and remapping.capabilities.cap.zlr:",
        "rights & WRITE:",
        "vectors",
    ),
    Mutant(
        "pages of supervisors are everybody's",
        TRANSLATE,
        "            if user_denied:\n",
        "            if False:\n",
        "tables",
    ),
    Mutant(
        "WPE is not looked at",
        TRANSLATE,
        "if privileged and not _write_protected(target):",
        "if privileged:",
        "vectors",
    ),
    Mutant(
        "rights of the second stage below a first one do not count",
        TRANSLATE,
        "    granted &= rights >> second_stage.geometry.rights_at\n",
        "",
        "vectors",
    ),
    Mutant(
        "a nested page is as large as its larger stage",
        TRANSLATE,
        "shift = min(shift, second_shift)",
        "shift = max(shift, second_shift)",
        "driver",
    ),
    Mutant(
        "pages that lead to the interrupt range are let through",
        TRANSLATE,
        "            if physical >> 20 == INTERRUPT_MEGABYTE:\n",
        "            if False:\n",
        "vectors",
    ),
    Mutant(
        "addresses beyond the width of the tables wrap",
        TRANSLATE,
        "raise TranslationFault(target.reasons.beyond_width, target.fpd)",
        "pass",
        "tables",
    ),
    Mutant(
        "addresses that are not canonical are walked",
        TRANSLATE,
        "raise TranslationFault(FaultReason.NOT_CANONICAL, target.fpd)",
        "pass",
        "tables",
    ),
    Mutant(
        "reserved bits of leaves are not looked at",
        "pagetables/walk.py",
        "if not entry & leaf or entry & page_reserved:",
        "if not entry & leaf:",
        "tables",
    ),
    Mutant(
        "reserved bits of context entries are not looked at",
        LOOKUP,
        "if entry & remapping.reserved[ContextEntry]:",
        "if False:",
        "tables",
    ),
    Mutant(
        "translation types that the unit has not are taken",
        LOOKUP,
        "if not supported[entry.tt] or entry.aw",
        "if entry.aw",
        "tables",
    ),
    Mutant(
        "present bit of root entries ignored",
        LOOKUP,
        "    if not root.p:\n",
        "    if False:\n",
        "tables",
    ),
    Mutant(
        "PASID-selective p_iotlb_inv keeps first-stage tables",
        CACHES,
        "self.first_stage.remove(lambda key, _: key[:2] == (domain_id, pasid))",
        "pass",
        "driver",
    ),
    Mutant(
        "domain-selective iotlb_inv keeps second-stage tables",
        CACHES,
        "self.second_stage.remove(lambda key, _: key[0] == domain_id)",
        "pass",
        "driver",
    ),
    Mutant(
        "domain-selective pc_inv does nothing",
        CACHES,
        "self.pasid.remove(lambda _, entry: entry.domain_id == domain_id)",
        "pass",
        "driver",
    ),
    Mutant(
        "p_iotlb_inv keeps first-stage tables whatever IH says",
        CACHES,
        "        if not hint:\n            _remove_tables(self.first_stage",
        "        if False:\n            _remove_tables(self.first_stage",
        "driver",
    ),
    Mutant(
        "domain-selective cc_inv does nothing",
        CACHES,
        "self.context.remove(lambda _, entry: entry.domain_id in (None, domain_id))",
        "pass",
        "driver",
    ),
    Mutant(
        "a translation request that only reads is given W",
        ATS,
        "need = READ if no_write and",
        "need = READ if False and",
        REQUESTS,
    ),
    Mutant(
        "translation requests need no DTE",
        ATS,
        "    if not context.dte:\n",
        "    if False:\n",
        "vectors",
    ),
    Mutant(
        "translations have another size than the tables",
        ATS,
        "        size=1 << entry.shift,",
        "        size=PAGE_SIZE,",
        REQUESTS,
    ),
    Mutant(
        "a full page request queue goes on",
        PAGE_REQUESTS,
        "if status.pro or self._full:",
        "if status.pro:",
        "vectors",
    ),
    Mutant(
        "page requests need no PRE",
        PAGE_REQUESTS,
        "        if not context.pre:\n",
        "        if False:\n",
        "vectors",
    ),
    Mutant(
        "the last request of a group is not marked",
        PAGE_REQUESTS,
        "lpig=message.last,",
        "lpig=False,",
        REQUESTS,
    ),
)
