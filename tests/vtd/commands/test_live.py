"""``vtd live serve`` as a process, with a client in the place of QEMU."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pagetables.second_stage import READ as R
from pagetables.second_stage import WRITE as W
from tests.vtd.live.client import Client, SocketServer
from vtd.cli import main
from vtd.layouts.entries import ContextEntry, RootEntry

MACHINE = """
[[unit]]
profile = "qemu"
base = 0xfd000000
include_all = true
[[function]]
at = "00:06.0"
model = "edu"
"""
ROOT, CONTEXT, TABLES, DATA = 0x1000, 0x2000, 0x3000, 0x10000
RAM = 0x20_0000


class Serving:
    """The command, and clients on all of its sockets that share one memory."""

    def __init__(self, folder: Path, *options: str, machine: str = MACHINE) -> None:
        (folder / "machine.toml").write_text(machine)
        self.sockets = folder / "sockets"
        arguments = ["live", "serve", "machine.toml", "--sockets", "sockets", "--format", "json"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vtd.cli", *arguments, *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.arguments: list[str] = []

    def begin(self) -> None:
        """Wait for the arguments of QEMU: the sockets are there then."""
        assert self.process.stdout is not None
        self.arguments = json.loads(self.process.stdout.readline())["qemu"]

    def stop(self) -> None:
        """End the command, whatever it is doing."""
        self.process.kill()
        self.process.communicate()

    def connect(self, name: str) -> Client:
        """A client of one socket that has agreed on a version."""
        client = Client(SocketServer(self.sockets / f"{name}.sock"))
        client.agree()
        return client

    def end(self) -> tuple[int, list[dict[str, object]], str]:
        """Exit code, what was said at the end, and stderr."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err


@pytest.fixture
def ram() -> Iterator[int]:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, RAM)
    yield fd
    os.close(fd)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started = []

    def start(*options: str, machine: str = MACHINE) -> Serving:
        started.append(Serving(tmp_path, *options, machine=machine))
        started[-1].begin()
        return started[-1]

    yield start
    for each in started:
        each.stop()


def hang_up(*clients: Client) -> None:
    for client in clients:
        assert isinstance(client.session, SocketServer)
        client.session.close()


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


def write_tables(ram: int, page: int) -> None:
    """Root and context entry of the edu function, and a table that maps 0 to ``page``."""
    entries = {
        ROOT: RootEntry.of(p=True, ctp=CONTEXT).pack(),
        CONTEXT + 16 * 0x30: ContextEntry.of(p=True, ssptptr=TABLES, aw=1, did=1).pack(),
        TABLES: number(TABLES + 0x1000 | R | W, 8),
        TABLES + 0x1000: number(TABLES + 0x2000 | R | W, 8),
        TABLES + 0x2000: number(page | R | W, 8),
    }
    for address, data in entries.items():
        os.pwrite(ram, data, address)


def transfer(edu: Client) -> None:
    """Have the device read address 0."""
    for offset, value in ((0x80, 0), (0x88, 0x4_0000), (0x90, 8), (0x98, 1)):
        assert edu.write(0, offset, number(value, 8)) == 0
    for _ in range(100):
        answer = edu.read(0, 0x98, 8)
        if answer == bytes(8):
            return
        time.sleep(0.02)
    raise AssertionError("the transfer does not end")


def test_a_guest_that_forgets_an_invalidation_is_found_and_recorded(
    serve: Callable[..., Serving], tmp_path: Path, ram: int
) -> None:
    serving = serve("--audit", "--record", "run.gz", "--trace")
    chipset, edu = serving.connect("chipset"), serving.connect("0000-00-06.0")
    for client in (chipset, edu):
        assert client.map(0, RAM, ram) == 0
    assert edu.write(7, 4, number(6)) == 0
    write_tables(ram, DATA)
    for offset, value in ((0x20, ROOT), (0x18, 1 << 30), (0x18, 1 << 31)):
        assert chipset.write(0, offset, number(value)) == 0
    transfer(edu)
    write_tables(ram, DATA + 0x1000)
    transfer(edu)
    assert chipset.write(0, 0x18, number(0)) == 0
    hang_up(chipset, edu)
    code, (summary,), err = serving.end()
    assert code == 1
    assert isinstance(summary["findings"], list)
    (finding,) = summary["findings"]
    assert "missing page-selective iotlb_inv of domain 1, address 0x0" in finding
    assert err.count("00:06.0 reads 0x0 (8): 0x10000") == 2
    head, *lines = map(json.loads, gzip.decompress((tmp_path / "run.gz").read_bytes()).splitlines())
    assert (head["format"], head["units"][0]["cap"]) == ("live-1", "0x80d2008c222f0606")
    assert lines[-1] == ["w", 0, 0x18, 4, 0]
    assert lines[:3] == [
        ["w", 0, 0x20, 4, ROOT],
        ["w", 0, 0x18, 4, 1 << 30],
        ["w", 0, 0x18, 4, 1 << 31],
    ]
    assert [line for line in lines if line[0] == "d"] == [["d", 0x30, 0, 1, DATA]] * 2
    assert not list(serving.sockets.iterdir())


def test_the_sockets_are_private_and_the_arguments_name_them(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    serving = serve("--seen-as", "/seen", "--memory", "256M")
    for name in ("chipset", "0000-00-06.0"):
        mode = (serving.sockets / f"{name}.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(serving.sockets.stat().st_mode) == 0o700
    devices = [json.loads(each) for each in serving.arguments if each.startswith("{")]
    assert [(each["addr"], each["socket"]["path"]) for each in devices] == [
        ("06.0", "/seen/0000-00-06.0.sock"), ("03.0", "/seen/chipset.sock")
    ]  # fmt: skip
    command = ["live", "serve", "machine.toml", "--sockets", "sockets"]
    again = subprocess.run(
        [sys.executable, "-m", "vtd.cli", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    (line,) = again.stderr.splitlines()
    assert "chipset.sock: Address already in use" in line
    clients = [serving.connect(name) for name in ("chipset", "0000-00-06.0")]
    hang_up(*clients)
    assert serving.end()[0] == 0
    assert not list(serving.sockets.iterdir())


def test_a_client_that_leaves_early_is_told_apart(serve: Callable[..., Serving]) -> None:
    serving = serve()
    hang_up(serving.connect("chipset"))
    code, _, err = serving.end()
    assert (code, err.splitlines()) == (
        2, ["vtd live serve: QEMU left before it had connected every function"]
    )  # fmt: skip


@pytest.mark.parametrize("translating", [True, False])
def test_a_client_that_is_gone_while_a_unit_translates_was_killed(
    serve: Callable[..., Serving], translating: bool
) -> None:
    serving = serve(machine=MACHINE.replace('"qemu"', '"xeon"'))
    chipset, edu = serving.connect("chipset"), serving.connect("0000-00-06.0")
    remapping = 1 << 25
    assert chipset.write(0, 0x18, number(remapping)) == 0
    if translating:
        assert chipset.write(0, 0x18, number(1 << 31 | remapping)) == 0
    hang_up(chipset, edu)
    code, (summary,), err = serving.end()
    said = "vtd live serve: QEMU was killed, or its guest was not shut down: unit 0xfd000000 is on"
    assert (code, err.splitlines()) == ((2, [said]) if translating else (0, []))
    assert summary["lost"] == 0
    assert not list(serving.sockets.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_finds_nothing_left_behind(
    serve: Callable[..., Serving], number: int
) -> None:
    serving = serve()
    serving.process.send_signal(number)
    code, (summary,), err = serving.end()
    assert (code, summary["exits"], err) == (0, 0, "")
    assert not list(serving.sockets.iterdir())


def test_what_a_recording_leaves_out_is_said(serve: Callable[..., Serving]) -> None:
    machine = MACHINE.replace('"qemu"', '"xeon"').replace('"edu"', '"nvme"\nats = true')
    serving = serve("--record", "run.gz", machine=machine)
    serving.process.send_signal(signal.SIGTERM)
    _, _, err = serving.end()
    assert err.splitlines() == [
        "the recording leaves out what device-TLBs ask and are told: a replay will differ"
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('model = "edu"', 'model = "toaster"'), "model: 'toaster' is none of"),
        (("[[function]]", '[[function]]\nat = "00:06.0"\n[[function]]'), "00:06.0"),
        (
            ("[[function]]", '[[unit]]\nprofile = "qemu"\nbase = 0xfd000000\n[[function]]'),
            "overlap",
        ),
        (('at = "00:06.0"', 'at = "0001:00:06.0"'), "0001:00"),
    ],
    ids=["model", "place", "units", "segment"],
)
def test_a_machine_that_can_not_be_served_is_refused_in_words(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(MACHINE.replace(*change))
    result = CliRunner().invoke(
        main, ["live", "serve", str(file), "--sockets", str(tmp_path / "s")]
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert all(line.startswith("vtd: ") for line in result.stderr.splitlines())
    assert said in result.stderr
    assert not (tmp_path / "s").exists() or not list((tmp_path / "s").iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--break", "everything"], "no-page-invalidation"),
        (["--caches", "some"], "aggressive"),
        (["--record", "nowhere/run.gz"], "nowhere/run.gz: No such file or directory"),
        (["--sockets", "s" * 120], "AF_UNIX path too long"),
        (["--sockets", "machine.toml"], "machine.toml: File exists"),
        (["--memory", "teapot"], "'teapot': no size, such as 512M or 2G"),
        (["--memory", "512"], "'512': no size"),
        (["--memory", "0G"], "'0G': no size"),
    ],
    ids=["break", "caches", "record", "path", "folder", "size", "unit", "nothing"],
)
def test_options_that_can_not_be_are_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "machine.toml").write_text(MACHINE)
    result = CliRunner().invoke(main, ["live", "serve", "machine.toml", *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
