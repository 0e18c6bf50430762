"""Scripts that are run by hand say what they do, and refuse what they do not understand."""

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = [
    "bench_devices",
    "bench_nic",
    "bench_passthrough",
    "bench",
    "bench_dmar",
    "bench_live",
    "compare_qemu",
    "conformance_payload",
    "dsa_kernel_queue",
    "ioat_kernel_tests",
    "fuzz_dmar",
    "generated_mutants",
    "fuzz_logs",
    "log_coverage",
    "mutants",
    "pages",
    "release",
]


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"scripts.{name}").main()
    return ended.value.code


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_shown_and_nothing_done(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, name, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_option_is_wrong_use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, name, "--frobnicate") == 2


@pytest.mark.parametrize("arguments", [["bench_dmar"], ["fuzz_dmar", "9", "1"]])
def test_a_folder_without_tables_is_wrong_use(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(monkeypatch, *arguments, str(tmp_path)) == 2
