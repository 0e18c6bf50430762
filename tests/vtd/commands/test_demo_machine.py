"""The demonstration: what it shows is what the hardware did."""

from vtd.commands import demo_machine as demo
from vtd.unit.requests.faults import FaultReason


def test_mapped_transfers_arrive_and_the_others_are_refused() -> None:
    first, again, second, beyond = demo.run().transfers
    for transfer in (first, again, second):
        assert transfer.arrived == demo.MESSAGE
        assert transfer.record is None
        assert transfer.explained.fault is None
    assert beyond.arrived == b""
    assert beyond.explained.fault is not None
    assert beyond.explained.fault.reason is FaultReason.WRITE_DENIED
    assert beyond.record is not None
    assert (beyond.record.sid, beyond.record.fi) == (0x10, demo.UNMAPPED)
    assert beyond.record.fr == FaultReason.WRITE_DENIED


def test_the_iotlb_fills_and_answers_the_second_time() -> None:
    first, again, second, beyond = demo.run().transfers
    assert [len(each.entries) for each in (first, again, second, beyond)] == [1, 1, 2, 2]
    assert first.cached is None
    assert again.cached == first.entries[0]
    assert (again.hits, again.misses) == (1, 1)
    assert (beyond.hits, beyond.misses) == (1, 3)


def test_the_table_says_which_unit_the_device_has() -> None:
    shown = demo.run()
    assert shown.owner.unit.register_base == demo.REGISTER_BASE
    assert str(shown.device) == "0000:00:02.0"


def test_running_it_twice_gives_the_same() -> None:
    one, other = demo.run(), demo.run()
    assert [each.arrived for each in one.transfers] == [each.arrived for each in other.transfers]
    assert [each.record for each in one.transfers] == [each.record for each in other.transfers]
