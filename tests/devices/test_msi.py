"""MSI and MSI-X: which message leaves, when, and what waits."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.config_space import ConfigSpace
from devices.msi import Msi, Msix

Messages = list[tuple[int, int]]


def make_msi(vectors: int = 4, *, maskable: bool = True) -> tuple[ConfigSpace, Msi, Messages]:
    sent: Messages = []
    config = ConfigSpace()
    msi = Msi(
        config,
        lambda address, data: sent.append((address, data)),
        vectors=vectors,
        maskable=maskable,
    )
    return config, msi, sent


def make_msix(vectors: int = 8) -> tuple[ConfigSpace, Msix, Messages]:
    sent: Messages = []
    config = ConfigSpace()
    msix = Msix(
        config,
        lambda address, data: sent.append((address, data)),
        vectors=vectors,
        table=(0, 0),
        pending=(0, 0x800),
    )
    return config, msix, sent


def program(config: ConfigSpace, control: int) -> None:
    config.write(0x44, 4, 0xFEE0_0018)
    config.write(0x4C, 2, 0x40)
    config.write(0x42, 2, control)


def test_disabled_msi_sends_nothing() -> None:
    _, msi, sent = make_msi()
    msi.notify(0)
    assert sent == []


@given(allowed=st.integers(0, 7), vector=st.integers(0, 31))
def test_the_function_owns_the_low_data_bits_of_the_vectors_allowed(
    allowed: int, vector: int
) -> None:
    config, msi, sent = make_msi(vectors=4)
    program(config, allowed << 4 | 1)
    assert msi.vectors == min(1 << allowed, 4)
    msi.notify(vector)
    assert sent == [(0xFEE0_0018, 0x40 | vector % msi.vectors)]


def test_a_masked_vector_is_pending_until_unmasked() -> None:
    config, msi, sent = make_msi()
    program(config, 2 << 4 | 1)
    config.write(0x50, 4, 0b1010)
    for vector in (1, 3, 3):
        msi.notify(vector)
    assert sent == []
    assert config.read(0x54, 4) == 0b1010
    config.write(0x50, 4, 0b0010)
    assert sent == [(0xFEE0_0018, 0x43)]
    assert config.read(0x54, 4) == 0b0010


def test_a_vector_that_does_not_exist_has_no_mask_bit() -> None:
    config, _, _ = make_msi(vectors=2)
    config.write(0x50, 4, 0xFFFF_FFFF)
    assert config.read(0x50, 4) == 0b11


@pytest.mark.parametrize(
    ("address64", "maskable", "next_capability"),
    [(False, False, 0x4C), (True, False, 0x50), (False, True, 0x54), (True, True, 0x58)],
)
def test_msi_size_follows_its_form(address64: bool, maskable: bool, next_capability: int) -> None:
    config = ConfigSpace()
    Msi(config, lambda address, data: None, address64=address64, maskable=maskable)
    assert config.add_capability(0x11, 12) == next_capability


@pytest.mark.parametrize("vectors", [0, 3, 64])
def test_msi_vectors_are_a_power_of_two(vectors: int) -> None:
    with pytest.raises(ValueError, match="vectors"):
        make_msi(vectors)


def test_msix_sends_the_entry_of_the_vector() -> None:
    config, msix, sent = make_msix()
    msix.table.write(0x20, 4, 0xFEE0_0000)
    msix.table.write(0x24, 4, 1)
    msix.table.write(0x28, 4, 0x1234_5678)
    msix.table.write(0x2C, 4, 0)
    msix.notify(2)
    assert sent == []
    config.write(0x42, 2, 0x8000)
    msix.notify(2)
    assert sent == [(0x1_FEE0_0000, 0x1234_5678)]


@given(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_msix_pending_is_what_was_raised_and_masked(raised: set[int], masked: set[int]) -> None:
    config, msix, sent = make_msix()
    config.write(0x42, 2, 0x8000)
    for vector in range(8):
        msix.table.write(16 * vector + 8, 4, vector)
        msix.table.write(16 * vector + 12, 4, int(vector in masked))
    for vector in raised:
        msix.notify(vector)
    assert {data for _, data in sent} == raised - masked
    assert msix.pending_bits.read(0, 8) == sum(1 << vector for vector in raised & masked)
    for vector in range(8):
        msix.table.write(16 * vector + 12, 4, 0)
    assert {data for _, data in sent} == raised
    assert len(sent) == len(raised)
    assert msix.pending_bits.read(0, 4) == 0


def test_function_mask_holds_everything_back() -> None:
    config, msix, sent = make_msix()
    msix.table.write(12, 4, 0)
    config.write(0x42, 2, 0xC000)
    msix.notify(0)
    assert (sent, msix.pending) == ([], 1)
    config.write(0x42, 2, 0x8000)
    assert sent == [(0, 0)]


def test_msix_table_takes_aligned_doublewords_only() -> None:
    _, msix, _ = make_msix()
    msix.table.write(0, 8, 0x1_2345_6788)
    assert msix.table.read(0, 8) == 0x1_2345_6788
    for offset, size in ((0, 2), (2, 4), (128, 4)):
        msix.table.write(offset, size, 0)
        assert msix.table.read(offset, size) == (1 << 8 * size) - 1
    assert msix.pending_bits.read(2, 2) == 0xFFFF
    assert msix.table.read(0, 8) == 0x1_2345_6788


def test_msix_control_and_location_are_read_only() -> None:
    config, _, _ = make_msix(vectors=8)
    config.write(0x42, 2, 0x3FFF)
    config.write(0x44, 4, 0)
    assert config.read(0x42, 2) == 7
    assert config.read(0x48, 4) == 0x800


def test_a_vector_outside_the_table_is_nothing() -> None:
    config, msix, sent = make_msix()
    config.write(0x42, 2, 0x8000)
    msix.notify(8)
    assert (sent, msix.pending) == ([], 0)
    with pytest.raises(ValueError, match="vectors"):
        make_msix(0)


@pytest.mark.parametrize("make", [make_msi, make_msix])
@given(vector=st.integers(0, 9), mask=st.booleans())
def test_a_host_signals_the_vectors_whatever_software_wrote(
    make: Callable[[], tuple[ConfigSpace, Msi | Msix, Messages]], vector: int, mask: bool
) -> None:
    """A host that owns the vectors is told of each; taken back, the function is off again."""
    config, owned, sent = make()
    if mask:
        program(config, 0x8001)
    signalled: list[int] = []
    owned.host = signalled.append
    assert owned.enabled
    owned.notify(vector)
    if isinstance(owned, Msix):
        assert signalled == [vector] * (vector < len(owned.entries))
        assert owned.pending == 0
    else:
        assert signalled == [vector % 4]
    assert sent == []
    owned.host = None
    if not mask:
        assert not owned.enabled
