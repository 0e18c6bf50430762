"""The comparison with volatility3 where that is not installed."""

import pytest

from scripts import bench_volatility


def test_it_says_plainly_that_volatility3_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_volatility, "find_spec", lambda name: None)
    assert bench_volatility.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("volatility3 is not installed: ")
    assert err.count("\n") == 1


def test_ratios_say_how_much_faster_the_device_is() -> None:
    assert bench_volatility.Ratio("hit", 2.0, 5.0).times == 2.5
