"""vtd mappings, walk, irte and msi: what they print of captures and images, what they refuse."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devices.interrupt_messages import RemappableAddress
from pagetables.images import load_capture
from pagetables.memory import PhysicalMemory
from tests.support import nested_image
from tests.support.nested_image import BASE, GUEST, IOVA, PASID, PHYSICAL, ROOT_POINTER
from tests.support.reference_data import CAPTURES, RECORDINGS, capture_folders
from tests.vtd.recordings.recorded_machine import RecordedMachine
from tests.vtd.recordings.small_capture import SmallCapture
from vtd.cli import main
from vtd.layouts.interrupt_entries import PostedIrte, RemappedIrte
from vtd.recordings.capture import read_json
from vtd.unit.registers.capabilities import PROFILES

LEGACY = str(CAPTURES / "legacy48-strict")
FIRST_STAGE = str(CAPTURES / "sm-first-stage")
TABLE = 0x4000


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


@pytest.fixture
def image(tmp_path: Path) -> list[str]:
    """Arguments that name a raw image with nested tables."""
    path = nested_image.save(tmp_path / "memory.bin")
    return [str(path), "--base", hex(BASE), "--profile", "xeon", "--root-table", hex(ROOT_POINTER)]


@pytest.mark.parametrize("folder", capture_folders(), ids=lambda folder: folder.name)
def test_mappings_of_a_capture_are_the_known_ones(folder: Path) -> None:
    truth = read_json(folder / "mappings.json.gz")
    listed = json.loads(run("mappings", str(folder), "--format", "json"))["sources"]
    for source, known in zip(listed, truth["sources"], strict=True):
        assert source["sid"] == known["sid"]
        assert source["pasid"] == known["pasid"]
        assert source["kind"] == known["kind"]
        leaves = truth["tables"][known["table"]]["leaves"]
        assert source["leaves"] == [leaf[:4] for leaf in leaves]
        assert len(source["details"]) == len(leaves)


def test_mappings_of_one_device() -> None:
    (only,) = json.loads(run("mappings", LEGACY, "--device", "00:1f.2", "--format", "json"))[
        "sources"
    ]
    assert only["sid"] == 0xFA
    shown = run("mappings", LEGACY, "--device", "00:1f.2").splitlines()
    assert shown[0].startswith("00:1f.2: second-stage, domain ")
    assert "0x0-0xffffff -> 0x0 rw" in shown[1]
    assert "no context entry" in refused("mappings", LEGACY, "--device", "7f:00.0")


def test_mappings_show_nested_ranges_flags_and_what_is_not_usable(image: list[str]) -> None:
    shown = run("mappings", *image)
    assert "00:02.0 PASID 0x0: pass-through, domain 8, no table: every address unchanged" in shown
    assert f"{IOVA:#x}-{IOVA + 0xFFF:#x} -> {GUEST:#x} -> {PHYSICAL:#x} rw" in shown
    assert "00:02.0 PASID 0x6: reserved; blocked: fault 5Bh" in shown
    assert "00:03.0: no-pasid-entry; no PASID of it is present" in shown
    listed = json.loads(run("mappings", *image, "--format", "json"))["sources"]
    nested = next(each for each in listed if each["pasid"] == PASID)
    assert nested["details"][0] == {
        "user": True,
        "accessed": False,
        "dirty": False,
        "guest": hex(GUEST),
    }
    assert next(each for each in listed if each["pasid"] == 6)["fault"]["reason"] == 0x5B


def test_mappings_show_entries_that_break_a_rule(image: list[str]) -> None:
    path = Path(image[0])
    memory = nested_image.nested_memory()
    top = memory.read_record(nested_image.SECOND_TABLES, 8)
    memory.write(nested_image.SECOND_TABLES, (top | 1 << 7).to_bytes(8, "little"))
    path.write_bytes(memory.read(BASE, nested_image.SIZE))
    assert "unusable: a reserved bit of the entry is set" in run("mappings", *image)
    listed = json.loads(run("mappings", *image, "--format", "json"))["sources"]
    nested = next(each for each in listed if each["pasid"] == PASID)
    assert nested["leaves"] == []
    assert nested["refused"][0][2] == "a reserved bit of the entry is set"


def test_mappings_show_whole_tables_that_are_not_usable(image: list[str]) -> None:
    path = Path(image[0])
    memory = nested_image.nested_memory()
    nowhere = BASE + nested_image.SIZE | 1
    memory.write(nested_image.ROOT + 8, nowhere.to_bytes(8, "little"))
    memory.write(nested_image.DIRECTORY + 8, nowhere.to_bytes(8, "little"))
    path.write_bytes(memory.read(BASE, nested_image.SIZE))
    shown = run("mappings", *image).splitlines()
    assert (
        "00:02.0 PASID 0x40 to 0x7f: reserved; blocked: fault 58h (SPT.1), "
        "reading the PASID table entry failed; recorded"
    ) in shown
    assert (
        "00:10.0 to 00:1f.7: reserved; blocked: fault 40h (SCT.1), "
        "reading the context entry failed; recorded"
    ) in shown
    (only,) = json.loads(run("mappings", *image, "--device", "00:1f.0", "--format", "json"))[
        "sources"
    ]
    assert (only["sid"], only["alike"], only["fault"]["reason"]) == (0x80, 128, 0x40)


def test_a_hostile_table_ends_at_the_limit(image: list[str]) -> None:
    assert "limit of 3 entries" in refused("mappings", *image, "--limit", "3")


def test_a_mode_that_is_not_usable_is_refused_by_mappings(tmp_path: Path) -> None:
    path = nested_image.save(tmp_path / "memory.bin")
    arguments = [str(path), "--base", hex(BASE), "--profile", "qemu", "--root-table", "0x400"]
    assert "RTADDR_REG" in refused("mappings", *arguments)


def test_walk_explains_a_mapped_and_an_unmapped_address() -> None:
    listed = json.loads(run("mappings", LEGACY, "--format", "json"))["sources"]
    source = next(each for each in listed if each["leaves"])
    iova, _, physical, _ = next(leaf for leaf in source["leaves"] if leaf[3] == "rw")
    device = f"{source['sid'] >> 8:02x}:{source['sid'] >> 3 & 31:02x}.{source['sid'] & 7}"
    shown = run("walk", LEGACY, "--device", device, iova)
    assert f"=> allowed: physical address {physical}" in shown
    assert "root entry" in shown
    assert "SS-PTE" in shown
    shown = run("walk", LEGACY, "--device", device, "0x123456789000", "--write")
    assert "=> blocked: fault 05h (LGN.2), no write permission; recorded" in shown
    answer = json.loads(run("walk", LEGACY, "--device", device, iova, "--format", "json"))
    assert answer["physical"] == physical
    assert answer["fault"] is None
    assert [step["level"] for step in answer["steps"]][-1] == "SS-PTE"


def test_walk_follows_the_specification_on_request() -> None:
    arguments = ["walk", FIRST_STAGE, "--device", "00:01.0", "0xffef6000"]
    assert "FS-PTE" in run(*arguments)
    assert "fault 5Ah" in run(*arguments, "--as-specified")
    assert "fault 5Ah" in run(*arguments, "--departures", "snoop_every_walk")
    assert "FS-PTE" in run(*arguments, "--departures", "ignore_aw_without_ssts")
    assert "says so already" in refused(*arguments, "--as-specified", "--departures", "qemu")


def test_an_image_is_of_a_unit_with_the_departures_named(tmp_path: Path) -> None:
    folder = SmallCapture(scalable=True, first_stage=True).write(tmp_path / "capture")
    memory = PhysicalMemory()
    load_capture(memory, folder)
    dump = tmp_path / "memory.bin"
    dump.write_bytes(memory.read(0x1000, 0x4000))
    unit = ["--base", "0x1000", "--profile", "qemu-scalable-first", "--root-table", "0x1400"]
    arguments = ["mappings", str(dump), *unit]
    assert "fault 5Ah" in run(*arguments)
    assert "pass-through" in run(*arguments, "--departures", "ignore_aw_without_ssts")


def test_walk_explains_nested_translation_readably(image: list[str]) -> None:
    shown = run("walk", *image, "--device", "00:02.0", hex(IOVA), "--pasid", "5").splitlines()
    assert "  nested translation, domain 9, PASID 0x5" in shown
    first = next(number for number, line in enumerate(shown) if "FS-PML4E" in line)
    assert [line.split()[0] for line in shown[first - 5 : first - 1]] == [
        "SS-PML4E",
        "SS-PDPE",
        "SS-PDE",
        "SS-PTE",
    ]
    assert all(line.startswith("    SS-") for line in shown[first - 5 : first - 1])
    assert "(guest 0x" in shown[first]
    assert shown[-1] == f"  => allowed: physical address {PHYSICAL:#x}, r-, page of 4 KiB"
    arguments = ["walk", *image, "--device", "00:02.0", hex(IOVA), "--pasid", "5"]
    assert "    maps the page; sets A" in shown
    assert "    maps the page; sets A D" in run(*arguments, "--write").splitlines()
    answer = json.loads(run(*arguments, "--format", "json"))
    assert [len(step["second"]) for step in answer["steps"]] == [4, 4, 4, 4, 0, 0, 0, 0]
    assert "fault 86h" not in run(*arguments, "--write")
    assert "fault 71h" in run("walk", *image, "--device", "00:02.0", "0x1000", "--pasid", "5")


def test_walk_shows_reserved_bits_and_unread_structures(image: list[str], tmp_path: Path) -> None:
    memory = nested_image.nested_memory()
    top = memory.read_record(nested_image.SECOND_TABLES, 8)
    memory.write(nested_image.SECOND_TABLES, (top | 1 << 7).to_bytes(8, "little"))
    path = tmp_path / "flawed.bin"
    path.write_bytes(memory.read(BASE, nested_image.SIZE))
    flawed = [str(path), *image[1:]]
    shown = run("walk", *flawed, "--device", "00:02.0", hex(IOVA), "--pasid", "5")
    assert "a reserved bit of the entry is set: 0x80" in shown
    nowhere = [*image[:-1], hex(ROOT_POINTER + nested_image.SIZE)]
    shown = run("walk", *nowhere, "--device", "00:02.0", hex(IOVA))
    assert "can't be read" in shown


def test_walk_explains_the_answer_to_a_translation_request(image: list[str]) -> None:
    def ask(*arguments: str) -> str:
        return run("walk", *image, "--device", "00:02.0", "--ats", *arguments).splitlines()[-1]

    nested = [hex(IOVA), "--pasid", "5"]
    assert ask(*nested, "--write") == f"  => answered: translated address {PHYSICAL:#x}, rw, 4 KiB"
    assert ask(*nested) == f"  => answered: translated address {PHYSICAL:#x}, r-, 4 KiB"
    assert ask("0x1000", "--pasid", "5") == "  => answered: success without permission"
    assert "-w, 4 KiB, untranslated access only" in ask("0xfee00000", "--write")
    assert "answered with completer abort; fault 5Bh" in ask("0x0", "--pasid", "6")
    arguments = ["walk", *image, "--device", "00:02.0", "--ats", *nested, "--format", "json"]
    answer = json.loads(run(*arguments))["answer"]
    assert answer["status"] == "success"
    assert answer["entries"][0]["address"] == hex(PHYSICAL)
    assert "not enabled" in run("walk", FIRST_STAGE, "--device", "00:01.0", "0x0", "--ats")


def test_addresses_and_registers_are_hexadecimal_without_0x_too(image: list[str]) -> None:
    xeon = PROFILES["xeon"]
    registers = ["--cap", hex(xeon.cap), "--ecap", hex(xeon.ecap)]
    for command in (
        ["walk", *image, "--device", "00:02.0", hex(IOVA), "--pasid", "5"],
        ["mappings", image[0], "--base", hex(BASE), "--root-table", hex(ROOT_POINTER), *registers],
        ["irte", *image[:5], "--interrupt-table", hex(BASE + 0x9000)],
        ["msi", "0xfee00258", "0x10"],
    ):
        assert run(*(each.removeprefix("0x") for each in command)) == run(*command)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "02", "0x0"], "--device"),
        (["--device", "1:00:02.0", "0x0"], "segment"),
        (["--device", "00:02.0", "x"], "no number"),
        (["--device", "00:02.0", "0x1" + "0" * 16], "64 bits"),
        (["--device", "00:02.0", "0x0", "--pasid", "0x100000"], "20 bits"),
        (["--device", "00:02.0", "0x0", "--privileged"], "--privileged"),
        (["--device", "00:02.0", "0xfee00000"], "vtd msi"),
        (["0x0"], "--device"),
    ],
)
def test_walk_refuses_what_makes_no_request(arguments: list[str], says: str) -> None:
    assert says in refused("walk", LEGACY, *arguments)


def test_walk_needs_remapping_to_be_on(image: list[str]) -> None:
    off = [*image[:-2], "--root-table"]
    del off[-1]
    assert "--root-table" in refused("walk", *off, "--device", "00:02.0", "0x0")


@pytest.fixture
def unprogrammed(tmp_path: Path) -> str:
    """A capture of a unit that nobody has switched on."""
    folder = tmp_path / "capture"
    shutil.copytree(LEGACY, folder)
    manifest = json.loads((folder / "capture.json").read_text())
    manifest["registers"]["GSTS"] = "0x0"
    (folder / "capture.json").write_text(json.dumps(manifest))
    return str(folder)


def test_a_unit_that_is_off_has_nothing_to_show(unprogrammed: str) -> None:
    assert "DMA remapping is off" in refused("walk", unprogrammed, "--device", "00:02.0", "0x0")
    assert run("mappings", unprogrammed) == "DMA remapping is off\n"
    assert json.loads(run("mappings", unprogrammed, "--format", "json")) == {"sources": []}
    assert "interrupt remapping is off" in run("irte", unprogrammed)
    assert "interrupt remapping is off" in run("msi", "0xfee00000", "0x31", unprogrammed)


def test_ranges_end_where_the_flags_differ(image: list[str]) -> None:
    path = Path(image[0])
    memory = nested_image.nested_memory()
    for at in range(0, nested_image.SIZE, 8):
        entry = memory.read_record(BASE + at, 8)
        if entry & ~0xFFF == GUEST and entry & 1:
            memory.write(BASE + at, (entry | 0x60).to_bytes(8, "little"))
    path.write_bytes(memory.read(BASE, nested_image.SIZE))
    shown = run("mappings", *image).splitlines()
    (first,) = [line for line in shown if f"{IOVA:#x}-" in line]
    (second,) = [line for line in shown if f"{IOVA + 0x1000:#x}-" in line]
    assert first.endswith("rw A D")
    assert second.endswith("r-")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--base", "0x1000"], "--profile"),
        (["--base", "0x1000", "--cap", "1"], "--cap and --ecap"),
        (["--base", "0x1000", "--profile", "pentium"], "'pentium' is none of qemu"),
        (
            ["--base", "0x1001", "--profile", "xeon", "--root-table", "0x1000000000000000000"],
            "--root-table: 0x1",
        ),
        (["--profile", "xeon", "--root-table", "0"], "base address"),
        (["--base", "0x1000", "--profile", "xeon"], "--root-table or --interrupt-table"),
        (["--base", "0", "--profile", "xeon", "--cap", "1"], "--cap: --profile xeon has its own"),
    ],
)
def test_an_image_needs_its_registers(tmp_path: Path, arguments: list[str], says: str) -> None:
    path = tmp_path / "memory.bin"
    path.write_bytes(bytes(0x1000))
    assert says in refused("mappings", str(path), *arguments)


def test_what_is_not_there_or_no_capture_is_named(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    for command in (
        ["mappings", gone],
        ["walk", gone, "0x0", "--device", "00:02.0"],
        ["irte", gone],
        ["msi", "0xfee00010", "0", gone],
    ):
        assert f"{gone}: No such file" in refused(*command)
    assert f"{tmp_path}: a folder without capture.json" in refused("mappings", str(tmp_path))


def test_a_collection_without_dumps_says_what_is_missing() -> None:
    archive = str(Path(__file__).parents[2] / "collections" / "guest-root.tar.gz")
    for command, *options in (
        ["mappings"],
        ["irte"],
        ["walk", "0", "--device", "00:04.0"],
        ["lint"],
    ):
        assert "it has no dumps of debugfs" in refused(command, archive, *options)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("ir_translation_struct", "Remapped Interrupt supported on IOMMU: dmar1\n"),
        ("ir_translation_struct", "Posted Interrupt supported on IOMMU: dmar1\n"),
        ("domain_translation_struct", "(B.D.F)\tIOVA_PFN\tPML5E\n"),
    ],
)
def test_a_dump_without_a_table_says_what_is_missing(tmp_path: Path, name: str, start: str) -> None:
    (tmp_path / name).write_text(start)
    for place in (tmp_path, tmp_path / name):
        assert "need iommu_regset beside them" in refused("irte", str(place))


def test_a_capture_has_its_own_registers() -> None:
    assert "--root-table: " in refused("mappings", LEGACY, "--root-table", "0")
    assert "--cap: " in refused("irte", LEGACY, "--cap", "0", "--ecap", "0")
    assert "--profile: " in refused("msi", "0xfee00010", "0", LEGACY, "--profile", "xeon")
    assert "--host-address-width: " in refused("irte", LEGACY, "--host-address-width", "39")


def test_tables_without_any_requester_say_so(tmp_path: Path) -> None:
    path = tmp_path / "memory.bin"
    path.write_bytes(bytes(0x3000))
    arguments = ["mappings", str(path), "--base", "0", "--profile", "qemu"]
    assert run(*arguments, "--root-table", "0x1000") == "no context entry is present\n"


def test_a_lime_dump_says_where_it_belongs(image: list[str], tmp_path: Path) -> None:
    raw = Path(image[0]).read_bytes()
    header = struct.pack("<4sIQQ8s", b"EMiL", 1, BASE, BASE + len(raw) - 1, bytes(8))
    path = tmp_path / "memory.lime"
    path.write_bytes(header + raw)
    assert run("mappings", str(path), *image[3:]) == run("mappings", *image)
    path.write_bytes(header + raw[:-1])
    assert "the file ends" in refused("mappings", str(path), *image[3:])


def test_an_image_with_cap_and_ecap(image: list[str]) -> None:
    xeon = PROFILES["xeon"]
    values = ["--cap", hex(xeon.cap), "--ecap", hex(xeon.ecap)]
    arguments = [image[0], *image[1:3], *values, *image[5:]]
    assert run("mappings", *arguments) == run("mappings", *image)


def test_registers_that_contradict_themselves_are_told_and_used(image: list[str]) -> None:
    xeon = PROFILES["xeon"]
    values = ["--cap", hex(xeon.cap), "--ecap", hex(xeon.ecap | 1 << 24)]
    result = CliRunner().invoke(main, ["mappings", image[0], *image[1:3], *values, *image[5:]])
    assert (result.exit_code, result.stdout) == (0, run("mappings", *image))
    assert result.stderr == (
        "vtd: --cap and --ecap contradict themselves: 11.4.3: deprecated bit 24 is set\n"
    )


def test_irte_lists_who_may_use_each_entry() -> None:
    shown = run("irte", LEGACY).splitlines()
    assert shown[0].startswith("table of 65536 entries at 0x1300000, interrupt remapping is on")
    assert "used by ff:00.0 (I/O APIC 0)" in shown[1]
    answer = json.loads(run("irte", LEGACY, "--format", "json"))
    known = read_json(CAPTURES / "legacy48-strict" / "interrupts.json")["table"]["irtes"]
    assert [(each["index"], each["lo"], each["hi"]) for each in answer["entries"]] == [
        (each["index"], each["lo"], each["hi"]) for each in known
    ]
    assert all(each["fault"] is None for each in answer["entries"])


@pytest.fixture
def interrupts(tmp_path: Path) -> list[str]:
    """Arguments that name an image with an interrupt-remapping table of 8 entries."""
    entries: dict[int, Any] = {
        0: RemappedIrte.of(p=True, v=0x41, dst=0x300, svt=0),
        1: RemappedIrte.of(p=True, v=0x42, svt=1, sq=3, sid=0x18, fpd=True),
        2: RemappedIrte.of(p=True, v=0x43, svt=2, sid=0x0507, dm=1, rh=True),
        3: RemappedIrte.of(p=True, v=0x44, svt=3),
        4: PostedIrte.of(p=True, im=True, vv=0x45, pdal=0x5000, urg=True),
        5: RemappedIrte.of(fpd=True),
    }
    memory = bytearray(0x2000)
    for index, entry in entries.items():
        memory[index * 16 : index * 16 + 16] = entry.pack()
    path = tmp_path / "interrupts.bin"
    path.write_bytes(memory)
    table = ["--interrupt-table", hex(TABLE | 2)]
    return [str(path), "--base", hex(TABLE), "--profile", "xeon", *table]


def message(index: int) -> str:
    return hex(RemappableAddress.for_handle(index, shv=False))


def test_irte_shows_every_kind_of_entry(interrupts: list[str]) -> None:
    shown = run("irte", *interrupts)
    assert "5 present" in shown
    assert "used by anyone" in shown
    assert "used by 00:03.0, any function" in shown
    assert "used by buses 05 to 07" in shown
    assert "no one: the validation type is reserved" in shown
    assert "posts vector 0x45 in 0x5000, urgent; used by anyone" in shown
    assert "blocked: fault 24h" in shown
    kinds = {
        each["index"]: each["kind"]
        for each in json.loads(run("irte", *interrupts, "--format", "json"))["entries"]
    }
    assert kinds == {0: "remapped", 1: "remapped", 2: "remapped", 3: "remapped", 4: "posted"}


def test_irte_leaves_out_what_is_no_memory(interrupts: list[str]) -> None:
    beyond = [*interrupts[:-1], hex(TABLE | 15)]
    assert "table of 65536 entries" in run("irte", *beyond)


def test_irte_of_a_unit_without_a_table(image: list[str]) -> None:
    arguments = [image[0], *image[1:5], "--interrupt-table", hex(BASE + 0x9000)]
    assert "0 present" in run("irte", *arguments)


def test_msi_decodes_both_formats() -> None:
    assert "vector 0x31 to logical APIC 0xf, fixed, edge, redirectable" in run(
        "msi", "0xfee0f00c", "0x4031"
    )
    shown = run("msi", hex(RemappableAddress.for_handle(0x8001, shv=True)), "3")
    assert "handle 0x8001 + subhandle 0x3, index 32772" in shown
    answer = json.loads(run("msi", "0xfee00000", "0x31", "--format", "json"))
    assert answer["format"] == "compatibility"
    assert answer["delivered"]["vector"] == 0x31


def test_msi_follows_every_observed_message_of_a_capture() -> None:
    known = read_json(CAPTURES / "legacy48-strict" / "interrupts.json")
    present = {each["index"]: each["vector"] for each in known["table"]["irtes"]}
    for each in known["observed"]:
        if each["irte"] is None or each["irte"]["index"] not in present:
            continue
        answer = json.loads(run("msi", *each["in"], LEGACY, "--format", "json"))
        assert answer["index"] == each["irte"]["index"]
        assert answer["fault"] is None
        assert answer["outcome"]["delivered"]["vector"] == present[answer["index"]]


def test_msi_says_why_a_message_is_blocked(interrupts: list[str]) -> None:
    sent = ["--device", "00:04.0"]
    assert "=> delivered: vector 0x41 to physical APIC 0x3" in run(
        "msi", message(0), "0", *interrupts
    )
    shown = run("msi", message(1), "0", *interrupts, *sent)
    assert "=> blocked: fault 26h" in shown
    assert "fault processing is disabled" in shown
    assert "sent by 05:00.0" in run("msi", message(2), "0", *interrupts)
    assert "blocked: fault 24h" in run("msi", message(3), "0", *interrupts)
    assert "posted: vector 0x45 in 0x5000; no notification" not in run(
        "msi", message(5), "0", *interrupts
    )
    assert "blocked: fault 21h" in run("msi", message(7000), "0", *interrupts)
    assert "blocked: fault 25h" in run("msi", "0xfee00000", "0", *interrupts)
    answer = json.loads(run("msi", message(7000), "0", *interrupts, "--format", "json"))
    assert answer["entry"] is None
    assert answer["fault"]["reason"] == 0x21
    assert answer["outcome"] is None


def test_msi_shows_a_posted_interrupt(interrupts: list[str], tmp_path: Path) -> None:
    path = Path(interrupts[0])
    memory = bytearray(path.read_bytes())
    memory[0x1000:0x1040] = (0xF2 << 272).to_bytes(64, "little")
    path.write_bytes(memory)
    assert "posted: vector 0x45 in 0x5000; notification: vector 0xf2 to physical APIC 0x0" in run(
        "msi", message(4), "0", *interrupts
    )
    answer = json.loads(run("msi", message(4), "0", *interrupts, "--format", "json"))
    assert answer["outcome"]["posted"]["notification"]["vector"] == 0xF2
    memory[0x1000:0x1040] = (1 << 256).to_bytes(64, "little")
    path.write_bytes(memory)
    assert "no notification" in run("msi", message(4), "0", *interrupts)
    assert path.read_bytes() == bytes(memory)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["0xfed00000", "0"], "0xfeexxxxx"),
        (["0x1fee00000", "0"], "0xfeexxxxx"),
        (["0xfee00000", "0x100000000"], "32 bits"),
        (["0xfee00000", "0", "--device", "zz"], "--device"),
        (["0xfee00000", "0", "/nonexistent"], "/nonexistent: No such file"),
    ],
)
def test_msi_refuses_what_is_no_message(arguments: list[str], says: str) -> None:
    assert says in refused("msi", *arguments)


STALE = str(RECORDINGS / "k61-stale-first.jsonl.gz")


def test_a_live_recording_shows_the_state_before_a_line() -> None:
    before = run("mappings", STALE, "--until", "335")
    assert "0x70004000-0x70004fff -> 0x29f4000 rw A D" in before
    later = json.loads(run("mappings", STALE, "--until", "600", "--format", "json"))["sources"]
    assert [each["sid"] for each in later] == [0x28, 0x30]
    assert "DMA remapping is off" in run("mappings", STALE)  # the guest shut down
    shown = run("walk", STALE, "--until", "335", "--device", "00:06.0", "0x70004000")
    assert "=> allowed: physical address 0x29f4000, rw, page of 4 KiB" in shown
    assert "3 present" in run("irte", str(RECORDINGS / "k7-rec-ir.jsonl.gz"))


def test_a_live_recording_says_that_it_knows_only_what_was_read() -> None:
    known = f"vtd: {STALE}: entries that no unit has read count as not present\n"
    off = "DMA remapping is off at its end; --until LINE takes the state before a line"
    result = CliRunner().invoke(main, ["mappings", STALE])
    assert result.stderr == f"{known}vtd: {STALE}: {off}\n"
    assert CliRunner().invoke(main, ["mappings", STALE, "--until", "335"]).stderr == known


def test_the_units_of_a_live_recording_have_names(tmp_path: Path) -> None:
    machine = RecordedMachine()
    machine.drivers[1].start()
    path = machine.write(tmp_path / "two.jsonl.gz")
    assert "name one of the units behind @: dmar0, dmar1" in refused("mappings", str(path))
    assert "DMA remapping is off" in run("mappings", f"{path}@dmar0")
    assert "no context entry is present" in run("mappings", f"{path}@dmar1")
    assert "behind @: dmar0, dmar1" in refused("mappings", f"{path}@dmar2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([STALE, "--root-table", "0x1000"], "--root-table: a recording has its own"),
        ([STALE, "--cap", "1"], "--cap: a recording has its own"),
        ([LEGACY, "--until", "9"], "--until: for live recordings"),
    ],
)
def test_options_that_do_not_fit_a_recording_are_refused(
    arguments: list[str], message: str
) -> None:
    assert message in refused("mappings", *arguments)
