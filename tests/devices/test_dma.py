"""The DMA contract: atomics, transfers cut at pages, and the port without remapping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import (
    ATOMIC,
    DONE,
    MESSAGE,
    READ,
    REFUSED,
    WRITE,
    AddressType,
    Atomic,
    AtomicOp,
    Completion,
    CompletionStatus,
    DirectPort,
    DmaPort,
    InvalidationCompletion,
    NoWrite,
    PageRequest,
    Request,
    part_of,
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
    assert Completion(CompletionStatus.SUCCESS).ok
    assert not Completion(CompletionStatus.COMPLETER_ABORT).ok


def test_without_remapping_only_transfers_are_carried_out(port: DirectPort) -> None:
    assert port.write_translated(0x100, b"1234").ok
    assert port.read_translated(0x100, 4).data == b"1234"
    message = PageRequest(0x1000, read=True, write=True, group_index=0, last=True)
    for refused in (
        port.translate(0x100),
        port.page_request(message),
        port.complete_invalidation(1, 1),
    ):
        assert refused == REFUSED


@pytest.mark.section("3.1")
def test_the_short_forms_are_requests_under_the_source_id_of_the_port() -> None:
    sent: list[Request] = []

    class Port(DmaPort):
        source_id = 0x0108

        def request(self, request: Request) -> Completion:
            sent.append(request)
            return DONE

    port = Port()
    port.read(0x1000, 4, pasid=7, privileged=True)
    port.write(0x2000, b"data", pasid=7)
    port.atomic(AtomicOp.CAS, 0x3000, bytes(8), pasid=7)
    port.translate(0x4000, 3, no_write=True, pasid=7)
    port.translate(0x4000)
    port.read_translated(0x5000, 8, pasid=7)
    port.write_translated(0x6000, b"data")
    message = PageRequest(0x7000, read=True, write=False, group_index=1, last=True, pasid=7)
    port.page_request(message)
    port.complete_invalidation(0b100, 2)
    asks, translated = AddressType.TRANSLATION_REQUEST, AddressType.TRANSLATED
    assert sent == [
        Request(0x0108, 0x1000, READ, 4, 7, True),
        Request(0x0108, 0x2000, WRITE, 4, 7, payload=b"data"),
        Request(0x0108, 0x3000, ATOMIC, 4, 7, payload=Atomic(AtomicOp.CAS, bytes(8))),
        Request(0x0108, 0x4000, READ, 24, 7, False, asks, NoWrite()),
        Request(0x0108, 0x4000, READ, 8, address_type=asks),
        Request(0x0108, 0x5000, READ, 8, 7, address_type=translated),
        Request(0x0108, 0x6000, WRITE, 4, address_type=translated, payload=b"data"),
        Request(0x0108, 0x7000, MESSAGE, 0, 7, payload=message),
        Request(0x0108, 0, MESSAGE, 0, payload=InvalidationCompletion(0b100, 2)),
    ]


@given(st.integers(0, 0xFFFF_F000), st.binary(max_size=0x3000))
def test_the_parts_of_a_write_carry_its_bytes(address: int, data: bytes) -> None:
    whole = Request(1, address, WRITE, len(data), 7, True, payload=data)
    cuts = list(split_pages(address, len(data)))
    parts = [part_of(whole, start, size) for start, size in cuts]
    assert [(part.address, part.length) for part in parts] == cuts
    payloads = [part.payload for part in parts if isinstance(part.payload, bytes)]
    assert [len(payload) for payload in payloads] == [size for _, size in cuts]
    assert b"".join(payloads) == data
    attributes = {part._replace(address=0, length=0, payload=None) for part in parts}
    assert attributes == {whole._replace(address=0, length=0, payload=None)}


@given(st.integers(0, 1 << 64), st.integers(0, 0x5000))
def test_parts_stay_within_pages_and_make_up_the_whole(address: int, length: int) -> None:
    parts = list(split_pages(address, length))
    assert parts[0][0] == address
    assert sum(size for _, size in parts) == length
    for (start, size), following in zip(parts, [*parts[1:], (address + length, 0)], strict=True):
        assert start >> 12 == (start + max(size, 1) - 1) >> 12
        assert start + size == following[0]
    assert all(size for _, size in parts) or length == 0
