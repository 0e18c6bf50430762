"""The DMA contract: atomics, transfers cut at pages, and the port without remapping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import (
    AtomicOp,
    CompletionStatus,
    DirectPort,
    TranslationCompletion,
    split_pages,
)
from pagetables.memory import PhysicalMemory

RAM_SIZE = 0x2000


@pytest.fixture
def port() -> DirectPort:
    memory = PhysicalMemory()
    memory.add_region(0, RAM_SIZE)
    memory.add_region(0x10000, 0x1000, read_only=True)
    return DirectPort(memory)


@given(
    address=st.integers(0, RAM_SIZE - 64),
    data=st.binary(max_size=64),
)
def test_what_was_written_is_read_back(address: int, data: bytes) -> None:
    memory = PhysicalMemory()
    memory.add_region(0, RAM_SIZE)
    port = DirectPort(memory)
    assert port.write(address, data).ok
    assert port.read(address, len(data)).data == data


def test_no_memory_is_an_unsupported_request(port: DirectPort) -> None:
    assert port.read(0x5000, 4).status is CompletionStatus.UNSUPPORTED_REQUEST
    assert port.write(0x5000, b"1234").status is CompletionStatus.UNSUPPORTED_REQUEST
    assert not port.atomic(AtomicOp.SWAP, 0x5000, bytes(4)).ok
    assert not port.atomic(AtomicOp.SWAP, 0x10000, b"1234").ok


def test_atomic_returns_the_old_value_and_stores_the_new_one(port: DirectPort) -> None:
    port.write(0x100, (5).to_bytes(8, "little"))
    old = port.atomic(AtomicOp.FETCH_ADD, 0x100, (7).to_bytes(8, "little"))
    assert int.from_bytes(old.data, "little") == 5
    assert int.from_bytes(port.read(0x100, 8).data, "little") == 12


@given(st.sampled_from([4, 8]), st.data())
def test_fetch_add_wraps_at_the_operand_size(size: int, data: st.DataObject) -> None:
    old, operand = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    new = AtomicOp.FETCH_ADD.apply(old, operand)
    number = int.from_bytes(old, "little") + int.from_bytes(operand, "little")
    assert new == (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    assert AtomicOp.SWAP.apply(old, operand) == operand


@pytest.mark.parametrize("size", [4, 8, 16])
def test_cas_stores_only_on_equality(size: int) -> None:
    old, other, new = (bytes([value]) * size for value in (1, 2, 3))
    assert AtomicOp.CAS.apply(old, old + new) == new
    assert AtomicOp.CAS.apply(old, other + new) == old


@pytest.mark.parametrize(
    ("op", "length"),
    [(AtomicOp.FETCH_ADD, 16), (AtomicOp.SWAP, 2), (AtomicOp.CAS, 4), (AtomicOp.CAS, 12)],
)
def test_operands_have_an_architected_size(op: AtomicOp, length: int) -> None:
    with pytest.raises(ValueError, match="operands"):
        op.size(bytes(length))


def test_translation_completion_without_permission_is_a_success() -> None:
    assert TranslationCompletion(CompletionStatus.SUCCESS).ok
    assert not TranslationCompletion(CompletionStatus.COMPLETER_ABORT).ok


@given(st.integers(0, 1 << 64), st.integers(0, 0x5000))
def test_parts_stay_within_pages_and_make_up_the_whole(address: int, length: int) -> None:
    parts = list(split_pages(address, length))
    assert parts[0][0] == address
    assert sum(size for _, size in parts) == length
    for (start, size), following in zip(parts, [*parts[1:], (address + length, 0)], strict=True):
        assert start >> 12 == (start + max(size, 1) - 1) >> 12
        assert start + size == following[0]
    assert all(size for _, size in parts) or length == 0
