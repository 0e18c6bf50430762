"""``vtd guest``: VMCSs decoded, states checked, EPT walks explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.vtd.guest.dumps import kvm_dump
from vtd.cli import main
from vtd.guest.itanium.registers import Psr
from vtd.guest.itanium.vpd import PARTS, VPD_SIZE
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import VMX_PROFILES
from vtd.guest.x86.fields import FIELDS
from vtd.guest.x86.vmcs import pack

BASE = base_state(VMX_PROFILES["everything"])


def run(*arguments: str, code: int = 0, stdin: bytes | None = None) -> str:
    result = CliRunner().invoke(main, ["guest", *arguments], input=stdin)
    assert result.exit_code == code, result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return result.stdout if code != 2 else result.output


def write(path: Path, *values: Any) -> str:
    path.write_text("\n".join(json.dumps(each) for each in values))
    return str(path)


class TestVmcs:
    def test_a_region_is_decoded_and_judged(self, tmp_path: Path) -> None:
        file = tmp_path / "region"
        file.write_bytes(pack(BASE.replace({"guest_rflags": 0, "instruction_error": 7})))
        shown = run("vmcs", str(file), code=1)
        assert "4400  instruction_error" in shown
        assert "VM entry with invalid control fields" in shown
        assert "broken: guest.rflags.reserved" in shown

    def test_a_good_one(self, tmp_path: Path) -> None:
        file = tmp_path / "region"
        file.write_bytes(pack(BASE))
        assert "no rule of a VM entry is broken" in run("vmcs", str(file))

    def test_a_dump_on_stdin_as_json(self) -> None:
        text = kvm_dump(BASE.replace({"guest_cr3": 1 << 63}))
        (answer,) = json.loads(run("vmcs", "-", "--format", "json", code=1, stdin=text.encode()))
        assert [each["rule"] for each in answer["broken"]] == ["guest.cr3"]
        assert answer["fields"]["guest_cr3"] == hex(1 << 63)

    def test_the_profile_decides(self, tmp_path: Path) -> None:
        file = tmp_path / "log"
        file.write_text(kvm_dump(BASE.replace({"guest_cr4": 0x2820})))
        assert "no rule" in run("vmcs", str(file))
        assert "guest.cr4" in run("vmcs", str(file), "--profile", "broadwell", code=1)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "empty"),
            (pack(BASE)[:2000], "2000 bytes"),
            (b"\x12\0\0\0" + bytes(4092), "revision 0x12"),
            (b"\x7fELF" + bytes(100), "revision"),
            (b"hello\n", "no VMCS dump"),
            (kvm_dump(BASE)[:500].encode(), "cut"),
        ],
    )
    def test_other_input_is_named(self, tmp_path: Path, data: bytes, words: str) -> None:
        file = tmp_path / "file"
        file.write_bytes(data)
        shown = run("vmcs", str(file), code=2)
        assert words in shown
        assert len(shown.strip().splitlines()) == 1

    def test_files_and_profiles_that_are_not_there(self, tmp_path: Path) -> None:
        assert "No such file" in run("vmcs", str(tmp_path / "none"), code=2)
        shown = run("vmcs", "-", "--profile", "pentium", code=2, stdin=b"x")
        assert all(name in shown for name in VMX_PROFILES)

    @given(st.binary(max_size=300))
    def test_any_bytes_end_in_a_documented_way(self, data: bytes) -> None:
        result = CliRunner().invoke(main, ["guest", "vmcs", "-"], input=data)
        assert result.exit_code in (0, 1, 2)
        assert isinstance(result.exception, SystemExit | None)


class TestCheck:
    def test_one_state(self, tmp_path: Path) -> None:
        file = write(tmp_path / "s", {"profile": "kut", "fields": {"0x6820": "0x0"}})
        answer = json.loads(run("check", file, "--format", "json", code=1))
        assert answer == {
            "enters": False,
            "group": "guest",
            "error": None,
            "exit_reason": 0x8000_0021,
            "qualification": 0,
            "rules": ["guest.rflags.reserved"],
        }
        assert "exit 33" in run("check", file, code=1)

    def test_the_ordinary_state_enters(self, tmp_path: Path) -> None:
        for name in VMX_PROFILES:
            file = write(tmp_path / "s", {"profile": name, "fields": {}})
            answer = json.loads(run("check", file, "--format", "json"))
            assert answer == {"enters": True, "group": None, "error": None, "exit_reason": None,
                              "qualification": None, "rules": []}  # fmt: skip

    def test_lists_and_lines_give_a_list(self, tmp_path: Path) -> None:
        bad = {"0x400A": 9, "0x6C02": "0x1000000000000000"}
        states: list[Any] = [
            {"profile": "broadwell", "fields": {"0x0000": "0x5"}},
            {"profile": "broadwell", "fields": bad},
        ]
        as_list = tmp_path / "list"
        as_list.write_text(json.dumps(states))
        for file in (str(as_list), write(tmp_path / "lines", *states)):
            first, second = json.loads(run("check", file, "--format", "json", code=1))
            assert first["enters"]
            assert (second["group"], second["error"]) == ("controls", 7)
            assert "2: fails with error 7" in run("check", file, code=1)

    def test_halves_of_wide_fields_and_memory(self, tmp_path: Path) -> None:
        state: dict[str, Any] = {"profile": "broadwell-posted", "fields": {"0x2013": "0x1"}}
        shadow = {"0x4002": hex(BASE.primary_controls | 1 << 21), "0x2012": "0x6000"}
        assert json.loads(run("check", write(tmp_path / "a", state), "--format", "json"))["enters"]
        state["fields"] = {**shadow, "0x401C": "0x5"}
        file = write(tmp_path / "b", state)
        assert "tpr_threshold.vtpr" in run("check", file, code=1)
        state["memory"] = {"0x6080": "50"}
        assert run("check", write(tmp_path / "c", state)) == "enters\n"

    def test_base_and_profiles(self, tmp_path: Path) -> None:
        for name, capabilities in VMX_PROFILES.items():
            base = json.loads(run("check", "--base", "--profile", name))
            assert base["profile"] == name
            there = [each for each in FIELDS if each.exists(capabilities.features)]
            assert len(base["fields"]) == len(there)
            assert run("check", write(tmp_path / "s", base)) == "enters\n"
        assert run("check", "--profiles").split() == list(VMX_PROFILES)
        assert json.loads(run("check", "--profiles", "--format", "json")) == list(VMX_PROFILES)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('{"profile": "broadwell", "fields": {"0x9999": 1, "0x0001": 2, "0x0000": 3}}',
             ("0x9999 is the encoding of no field", "0x0001 is the encoding of no field")),
            ('{"profile": "pentium"}', tuple(VMX_PROFILES)),
            ('{"fields": {}}', ("profile None",)),
            ('{"profile": "kut", "field": {}}', ("'field' is none of",)),
            ('{"profile": "kut", "fields": {"0x0000": "0x10000"}}', ("vpid", "too wide")),
            ('{"profile": "kut", "fields": {"0x2011": "0x100000000"}}', ("too wide",)),
            ('{"profile": "kut", "fields": {"0x0000": -1}}', ("negative",)),
            ('{"profile": "kut", "fields": {"vpid": 1}}', ("'vpid' is no number",)),
            ('{"profile": "kut", "fields": {"0x0000": true}}', ("no number",)),
            ('{"profile": "kut", "fields": []}', ("objects",)),
            ('{"profile": "kut", "memory": {"0x0": "xyz"}}', ("no hexadecimal bytes",)),
            ("[1]", ("item 1: no object",)),
            ("{", ("line 1: no JSON",)),
            ('{"profile": "kut"}\n{', ("line 2: no JSON",)),
            ("", ("no JSON",)),
        ],
    )  # fmt: skip
    def test_unusable_files_are_named(
        self, tmp_path: Path, text: str, words: tuple[str, ...]
    ) -> None:
        file = tmp_path / "state"
        file.write_text(text)
        shown = run("check", str(file), code=2)
        assert all(word in shown for word in words), shown
        assert len(shown.strip().splitlines()) == 1

    def test_wrong_use(self) -> None:
        run("check", code=2)
        assert "pentium" in run("check", "--base", "--profile", "pentium", code=2)

    @given(st.text(max_size=80))
    def test_any_text_ends_in_a_documented_way(self, text: str) -> None:
        result = CliRunner().invoke(main, ["guest", "check", "-"], input=text)
        assert result.exit_code in (0, 1, 2)
        assert isinstance(result.exception, SystemExit | None)


class TestEpt:
    @pytest.fixture
    def image(self, tmp_path: Path) -> str:
        """Raw memory: a table at 1000h, one page at 4000h mapped to 7000h, a broken entry."""
        memory = bytearray(0x5000)
        for where, entry in (
            (0x1000, 0x2007),
            (0x2000, 0x3007),
            (0x3000, 0x4007),
            (0x4020, 0x7035),
            (0x4028, 0x8032),
        ):
            memory[where : where + 8] = entry.to_bytes(8, "little")
        file = tmp_path / "image"
        file.write_bytes(memory)
        return str(file)

    def ept(self, image: str, *arguments: str) -> str:
        return run("ept", image, "--base", "0", "--eptp", "0x1000", *arguments)

    def test_a_walk(self, image: str) -> None:
        shown = self.ept(image, "0x4123")
        assert "EPT PML4E  at 0x000000001000  r w x addr=0x2000" in shown
        assert "EPT PTE" in shown
        assert "=> allowed: physical address 0x7123, r-x" in shown

    def test_a_violation(self, image: str) -> None:
        shown = self.ept(image, "0x4123", "--access", "write")
        assert "exit 48 (EPT VIOLATION), qualification 0x1aa" in shown
        assert "0x181" in self.ept(image, "0x9000")
        assert "0x184" in self.ept(image, "0x9000", "--access", "fetch")

    def test_a_misconfiguration_as_json(self, image: str) -> None:
        answer = json.loads(self.ept(image, "0x5000", "--format", "json"))
        assert answer["exit_reason"] == 49
        assert [step["rule"] for step in answer["steps"]] == [
            "table", "table", "table", "write_without_read",
        ]  # fmt: skip
        assert answer["physical"] is None
        answer = json.loads(self.ept(image, "0x4123", "--format", "json"))
        assert (answer["physical"], answer["rights"]) == ("0x7123", "r-x")

    def test_the_profile_decides_what_is_supported(self, image: str) -> None:
        arguments = ("ept", image, "--base", "0", "--eptp", "0x1026", "0x4000")
        run(*arguments)
        assert "no EPTP" in run(*arguments, "--profile", "broadwell", code=2)

    def test_wrong_use(self, image: str, tmp_path: Path) -> None:
        run("ept", image, "--base", "0", "0x0", code=2)
        run("ept", image, "--base", "0", "--eptp", "0x1000", "-5", code=2)
        run("ept", image, "--base", "0", "--eptp", "0x1000", hex(1 << 64), code=2)
        run("ept", image, "--eptp", "0x1000", "0", code=2)
        run("ept", str(tmp_path / "none"), "--base", "0", "--eptp", "0x1000", "0", code=2)
        run("ept", image, "--base", "0", "--eptp", hex(1 << 60), "0", code=2)


def test_help() -> None:
    shown = run("--help")
    assert all(word in shown for word in ("vmcs", "check", "ept"))


class TestVpd:
    def file(self, tmp_path: Path, **values: int) -> str:
        data = bytearray(VPD_SIZE)
        for name, value in values.items():
            at = PARTS[name].offset
            data[at : at + 8] = value.to_bytes(8, "little")
        path = tmp_path / "vpd"
        path.write_bytes(data)
        return str(path)

    def test_it_is_decoded(self, tmp_path: Path) -> None:
        file = self.file(tmp_path, vac=0x7F, vdc=1, vhpi=5, vpsr=Psr.of(ic=1, i=1), vcr=7)
        shown = run("vpd", file)
        assert "a_int=1 a_from_int_cr=1" in shown
        assert "vpsr             0x0000000000006000  ic=1 i=1" in shown
        assert "vectors 0x50 to 0x5f" in shown
        assert "2048  vcr.dcr" in shown

    def test_as_json(self, tmp_path: Path) -> None:
        answer = json.loads(run("vpd", self.file(tmp_path, vac=1, vhpi=32), "--format", "json"))
        assert answer["vac"] == "0x1" and answer["vac_bits"]["a_int"] == 1
        assert answer["vhpi"] == "0x20" and answer["remarks"] == []
        assert len(answer["vgr"]) == 16 and answer["vcr"] == {}

    def test_what_breaks_a_rule_is_remarked(self, tmp_path: Path) -> None:
        shown = run("vpd", self.file(tmp_path, vac=1, vdc=2, vhpi=40), code=1)
        assert "remark: a_int and d_extint" in shown
        assert "remark: vhpi 0x28" in shown
        assert "  no interrupt" in shown

    def test_an_empty_one_and_stdin(self) -> None:
        assert "every field is 0" in run("vpd", "-", stdin=bytes(VPD_SIZE))

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "0 bytes"),
            (bytes(4096), "cut: 4096 bytes"),
            (pack(BASE) * 16, "unknown revision"),
            (b"MZ".ljust(VPD_SIZE, b"\0"), "unknown revision"),
        ],
    )
    def test_other_input_is_named(self, tmp_path: Path, data: bytes, words: str) -> None:
        file = tmp_path / "file"
        file.write_bytes(data)
        shown = run("vpd", str(file), code=2)
        assert words in shown
        assert len(shown.strip().splitlines()) == 1

    @given(st.binary(max_size=200), st.sampled_from([0, 8, 256, 1024, 1424, 2048]))
    def test_any_bytes_are_decoded_or_named(self, data: bytes, at: int) -> None:
        whole = bytes(at) + data.ljust(VPD_SIZE - at, b"\0")
        result = CliRunner().invoke(main, ["guest", "vpd", "-"], input=whole)
        assert result.exit_code in (0, 1, 2)
        assert isinstance(result.exception, SystemExit | None)
