"""What has been read for the current request, of which the entries that it fills are made.

Left out: what the caches do with it.
"""

from __future__ import annotations

from typing import Any

from devices.dma import Request
from pagetables.observer import Structure
from vtd.auditing.debt import Word
from vtd.auditing.significance import ALL, entry_mask, paging_mask
from vtd.auditing.stored_words import PAGING, StoredWords
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.unit import RemappingUnit

Words = dict[tuple[Any, int], Word]
"""By structure and address."""


class RequestWords:
    """The words of the current request, by what they lead to."""

    def __init__(self, unit: RemappingUnit, stored: StoredWords) -> None:
        self._unit = unit
        self._stored = stored
        self.forget()

    def forget(self, request: Request | None = None) -> None:
        """Another request, or none: nothing is known of where it goes."""
        self.request = request
        self.words: Words = {}
        """What an entry for it comes from."""
        self.second: Words = {}
        """Those of the second stage alone."""
        self.lookup: Words = {}
        """Those that lead to its tables."""
        self.permissions: Words = {}
        """Those of host permission tables."""

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """What an entry that is cached next will have come from."""
        match structure:
            case Structure.FIRST_STAGE | Structure.SECOND_STAGE:
                word = self._stored.word(
                    structure, address, size, value, self._paging_masks[structure]
                )
                self.words.setdefault((structure, address), word)
                if structure is Structure.SECOND_STAGE:
                    self.second.setdefault((structure, address), word)
            case Structure.HOST_PERMISSION:
                word = self._stored.word(structure, address, size, value, ALL)
                self.permissions[structure, address] = word
            case Structure.INTERRUPT_ENTRY:
                mask = entry_mask(structure, value, scalable=False, upper_half=False)
                word = self._stored.word(structure, address, size, value, mask)
                self.words[structure, address] = word
            case Structure.ROOT | Structure.CONTEXT | Structure.PASID_DIRECTORY | Structure.PASID:
                scalable = self._unit.remapping.mode is not TranslationTableMode.LEGACY
                upper = bool(self.request and self.request.source_id & 0x80)
                mask = entry_mask(structure, value, scalable=scalable, upper_half=upper)
                word = self._stored.word(structure, address, size, value, mask)
                self.lookup.setdefault((structure, address), word)
                self.words.setdefault((structure, address), word)

    @property
    def _paging_masks(self) -> dict[Structure, int]:
        return _PAGING_MASKS[self._unit.remapping.root.ssirwe]

    def updated(self, structure: Structure, address: int, new: int) -> None:
        """The unit set a flag in an entry itself."""
        for words in (self.words, self.second):
            word = words.get((structure, address))
            if word is not None:
                words[structure, address] = self._stored.word(
                    structure, address, word.size, new, word.mask
                )

    def entry(self) -> Word | None:
        """The context or PASID entry of the current request, which says where tables are."""
        legacy = self._unit.remapping.mode is TranslationTableMode.LEGACY
        wanted = Structure.CONTEXT if legacy else Structure.PASID
        words = [word for word in self.lookup.values() if word.structure is wanted]
        return words[-1] if words else None


_PAGING_MASKS = {
    rights: {each: paging_mask(each, input_output_rights=rights) for each in PAGING}
    for rights in (False, True)
}
