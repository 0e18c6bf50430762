"""Alarms ring in the order of their times, each with the clock at its own."""

from hypothesis import given
from hypothesis import strategies as st

from devices.clock import Clock


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans())),
    st.lists(st.integers(0, 40)),
)
def test_alarms_ring_once_in_their_order_at_their_time(
    alarms: list[tuple[int, int, bool]], steps: list[int]
) -> None:
    """Each alarm sets a second one when it rings; some are cancelled."""
    clock = Clock()
    rung: list[tuple[int, int]] = []
    expected = []
    end = sum(steps)

    def first(number: int, again: int) -> None:
        rung.append((clock.now, number))
        clock.after(again, lambda: rung.append((clock.now, -number)))

    for number, (due, again, cancelled) in enumerate(alarms, 1):
        alarm = clock.after(due, lambda number=number, again=again: first(number, again))  # type: ignore[misc]
        if cancelled:
            alarm.cancel()
            continue
        expected += [(due, number)] * (due <= end) + [(due + again, -number)] * (due + again <= end)
    for step in steps:
        clock.advance(step)
    if not steps:
        clock.advance(0)
    assert sorted(rung) == sorted(expected)
    assert [time for time, _ in rung] == sorted(time for time, _ in rung)
    assert clock.now == end
    following = clock.next_due()
    assert following is None or following > end


def test_alarms_of_one_time_ring_in_the_order_in_which_they_were_set() -> None:
    clock = Clock()
    rung: list[str] = []
    for name in ("one", "two", "three"):
        clock.after(5, lambda name=name: rung.append(name))  # type: ignore[misc]
    assert clock.next_due() == 5
    clock.advance(4)
    assert rung == []
    clock.advance(1)
    assert rung == ["one", "two", "three"]
    assert clock.next_due() is None


def test_alarms_that_were_cancelled_are_forgotten() -> None:
    clock = Clock()
    clock.after(5, lambda: None)
    for _ in range(10_000):
        clock.after(1 << 40, lambda: None).cancel()
    assert len(vars(clock)["_alarms"]) < 200
    assert clock.next_due() == 5


def test_time_is_skipped_only_as_far_as_it_passes_and_past_no_alarm() -> None:
    clock = Clock()
    times: list[int] = []

    def work() -> None:
        while True:
            times.append(clock.now)
            if not clock.skip(3):
                break
        clock.after(3, work)

    clock.after(3, work)
    rung: list[int] = []
    clock.after(9, lambda: rung.append(clock.now))
    assert not clock.skip(1)
    clock.advance(7)
    assert (times, rung, clock.now) == ([3, 6], [], 7)
    clock.advance(20)
    assert times == [3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert rung == [9]
