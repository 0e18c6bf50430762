"""What the bench times of device models is what its cases say."""

from __future__ import annotations

import pytest

from scripts import bench_devices


def test_copies_and_the_requests_beside_them_move_the_same_bytes() -> None:
    made = bench_devices.copies(3)
    memory = made.engine.port.platform.memory  # type: ignore[attr-defined]
    data = bytes(range(256)) * 48
    for run in (made.copy, made.requests):
        memory.write(bench_devices.SOURCE, data)
        run()
        assert memory.read(bench_devices.DESTINATION, len(data)) == data
        memory.write(bench_devices.DESTINATION, bytes(len(data)))


def test_a_machine_of_64_functions_takes_less_than_100_mib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_devices.py"])
    assembly = bench_devices.large_machine()
    assert len([each for each in assembly.functions.values() if each.header_type == 0]) == 65
    bench_devices.main()
    *rates, memory = capsys.readouterr().out.splitlines()
    assert len(rates) == 2
    assert memory.startswith("machine of 64 functions: ")
    assert 0 < float(memory.split()[-2]) <= 100
