"""Hypothesis strategies for the processors' side of guests (needs the ``fuzz`` extra).

Entries and tables of EPT, VMCSs as field values, VPDs as bytes, instructions of Itanium guests.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.outcomes import GuestInstruction
from vtd.guest.itanium.registers import CONTROL_REGISTERS, Cr, Psr
from vtd.guest.itanium.vpd import PARTS, VPD_SIZE, Vac, Vdc
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import VmxCapabilities
from vtd.guest.x86.fields import FIELDS
from vtd.guest.x86.vmcs import VmcsState

WORD = (1 << 64) - 1
WORDS = st.integers(0, WORD)


@st.composite
def ept_entries(draw: st.DrawFn, tables: Sequence[int], pages: Sequence[int] = (0x900,)) -> int:
    """EPT entries: mostly good ones to these frames, one in eight with a bit turned over."""
    rights = draw(st.sampled_from([7, 7, 7, 7, 3, 5, 1, 4, 2, 6, 0, 0x400]))
    entry = draw(st.sampled_from([*tables, *tables, *pages])) << 12 | rights
    if draw(st.integers(0, 4)) == 0:
        entry = draw(st.sampled_from([0, 1 << 21, 1 << 30])) | rights | 0x80
        entry |= draw(st.sampled_from([0, 6, 6, 5, 3])) << 3
    if draw(st.integers(0, 2)) == 0:
        entry |= draw(st.sampled_from([0x100, 0x200, 0x400, 0x30, 0x40, 1 << 63, 1 << 55]))
    if draw(st.integers(0, 7)) == 0:
        entry ^= 1 << draw(st.integers(0, 63))
    return entry


@st.composite
def vmcs_states(draw: st.DrawFn, capabilities: VmxCapabilities, most: int = 4) -> VmcsState:
    """The ordinary state with up to ``most`` fields changed: a bit, or all of it."""
    state = base_state(capabilities)
    values = {}
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=most, unique=True)):
        bits = 8 * field.size
        turned = [state[field.name] ^ 1 << bit for bit in range(bits)]
        values[field.name] = draw(st.sampled_from(turned) | st.integers(0, (1 << bits) - 1))
    return state.replace(values)


@st.composite
def vpds(draw: st.DrawFn) -> bytes:
    """A VPD as software may have set it up, any of its fields changed."""
    data = bytearray(VPD_SIZE)
    limits = {
        "vac": WORD & ~Vac.RESERVED,
        "vdc": WORD & ~Vdc.RESERVED,
        "vpsr": WORD & ~Psr.RESERVED,
    }
    names = [name for name, part in PARTS.items() if not part.reserved]
    for name in draw(st.lists(st.sampled_from(names), max_size=6)):
        index = draw(st.integers(0, PARTS[name].size // 8 - 1))
        at = PARTS[name].offset + 8 * index
        value = draw(WORDS) & limits.get(name, WORD)
        data[at : at + 8] = value.to_bytes(8, "little")
    return bytes(data)


_I, _IC = Psr.i.mask, Psr.ic.mask
OPERANDS = st.one_of(
    st.sampled_from(
        [0, 1, _I, _IC, _I | _IC, 1 << 16, 0x50, 0x2000, 0x4661, 0x10 << 2, WORD],
    ),
    WORDS,
)
INSTRUCTIONS = st.one_of(
    st.builds(
        GuestInstruction,
        st.sampled_from([InterceptCause.SSM, InterceptCause.RSM, InterceptCause.MOV_TO_PSR]),
        st.just(0),
        st.sampled_from([_I, _IC, _I | _IC, Psr.bn.mask]),
    ),
    st.builds(
        GuestInstruction,
        st.sampled_from([InterceptCause.MOV_TO_CR, InterceptCause.MOV_FROM_CR]),
        st.sampled_from([Cr.TPR, Cr.IVR, Cr.EOI, Cr.IPSR, Cr.IIP, Cr.IFS, Cr.IVA]),
        OPERANDS,
    ),
    st.builds(
        GuestInstruction,
        st.sampled_from(
            [
                InterceptCause.BSW_0,
                InterceptCause.BSW_1,
                InterceptCause.RFI,
                InterceptCause.COVER,
            ]
        ),
    ),
    st.builds(
        GuestInstruction,
        st.sampled_from(InterceptCause),
        st.one_of(st.sampled_from(sorted(CONTROL_REGISTERS)), st.integers(0, 130)),
        OPERANDS,
    ),
)
"""Instructions of an Itanium guest, those that accelerations are about more often."""
