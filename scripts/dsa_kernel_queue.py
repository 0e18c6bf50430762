"""A work queue of the kernel on a Data Streaming Accelerator, under TCG that lacks its store.

    python -m scripts.dsa_kernel_queue FOLDER [--descriptors N]

fetches packaged sources and headers of the newest kernel with apt into FOLDER and builds ``idxd``
with two changes: it loads on a processor without MOVDIR64B, and stores a descriptor in eight pieces
of 8 bytes, under a lock. dmatest, a module that no Debian kernel has, then drives the queue as a
DMA engine: it copies between buffers at random offsets and compares every byte. The script that is
made for ``vtd live boot --run`` passes if all copies were right. On Debian 12 with gcc and make;
nothing of it is part of this repository.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from scripts.kernel_modules import build_modules, headers_in, self_extracting, source, unpacked
from vtd.live.fetch import NEXT_SUITE, Apt, System

MACHINE = """\
[[unit]]
profile = "xeon"
base = 0xfd000000
include_all = true

[[function]]
at = "00:04.0"
model = "dsa"

[[function]]
at = "00:05.0"
model = "nvme"
"""
THREADS = 16
"""As many as the queue takes descriptors."""
COMMANDS = """\
. /checks.sh
check="kernel work queue"
cd /tmp && tar -xf payload
for module in idxd_bus idxd; do
	insmod $module.ko || failed "$check" "$module: $(dmesg | tail -1)"
done
device=/sys/bus/dsa/devices/dsa0
echo 0 >$device/engine0.0/group_id
for setting in group_id=0 mode=dedicated size=16 priority=10 type=kernel name=check \\
	driver_name=dmaengine; do
	echo "${setting#*=}" >"$device/wq0.0/${setting%%=*}"
done
echo dsa0 >/sys/bus/dsa/drivers/idxd/bind
echo wq0.0 >/sys/bus/dsa/drivers/dmaengine/bind
say "channels: $(ls /sys/class/dma), PASIDs enabled: $(cat $device/pasid_enabled)"
insmod dmatest.ko timeout=30000 threads_per_chan=THREADS iterations=EACH test_buf_size=256 run=1 ||
	failed "$check" "dmatest: $(dmesg | tail -1)"
while [ "$(cat /sys/module/dmatest/parameters/run)" = Y ]; do
	sleep 5
	say "$(cut -d' ' -f1 /proc/uptime) s"
done
threads=$(dmesg | grep -c "dmatest.*summary EACH tests, 0 failures")
say "$threads threads with EACH copies each, 0 failures"
[ "$threads" = THREADS ] && ok "$check" || failed "$check" "$(dmesg | grep dmatest | tail -1)"
"""
CHECK = """\
	if (!cpu_feature_enabled(X86_FEATURE_MOVDIR64B)) {
		pr_warn("idxd driver failed to load without MOVDIR64B.\\n");
		return -ENODEV;
	}
"""
STORE = "		iosubmit_cmds512(portal, desc->hw, 1);\n"
EIGHT_STORES = """\
		static DEFINE_RAW_SPINLOCK(one_store);
		unsigned long flags;

		raw_spin_lock_irqsave(&one_store, flags);
		for (int piece = 0; piece < 8; piece++)
			writeq(((u64 *)desc->hw)[piece], portal + 8 * piece);
		raw_spin_unlock_irqrestore(&one_store, flags);
"""
"""Other threads submit at the same place in the portal: nothing may come between the pieces."""
LIBRARIES = ("libc6", "libelf1t64", "zlib1g", "libzstd1")
"""Of the packaged build programs, which are newer than the machine's."""
PROGRAMS = {
    "tools/objtool/objtool": "objtool.real-x86",
    "scripts/mod/modpost": "modpost.real-lsb-64",
}
WITH_LIBRARIES = """\
#!/bin/sh
libraries={files}/usr/lib/x86_64-linux-gnu
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "{program}" "$@"
"""
OPTIONS = (
    "CC=gcc",
    "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=",  # of the compiler that the kernel was built with
    "CONFIG_DEBUG_INFO_BTF_MODULES=",
    "KCFLAGS=-Wno-attributes",
)
MODULES = ("idxd/idxd_bus.ko", "idxd/idxd.ko", "dmatest.ko")


def replaced(text: str, old: str, new: str) -> str:
    """A source with one place changed; ValueError if it is not there once."""
    if text.count(old) != 1:
        raise ValueError(f"the source has changed: {old.strip()!r}")
    return text.replace(old, new)


def without_the_store(driver: Path) -> None:
    """Change the sources of idxd."""
    for name, old, new in (("init.c", CHECK, ""), ("submit.c", STORE, EIGHT_STORES)):
        (driver / name).write_text(replaced((driver / name).read_text(), old, new))


def build(apt: Apt, folder: Path) -> bytes:
    """The modules, in an archive."""
    wanted = ("linux-headers-", "linux-kbuild-", "linux-source-")
    needed = apt.needed("linux-headers-amd64", "linux-source")
    names = [name for name in needed if name.startswith(wanted)]
    files = unpacked(folder / "next", apt.download([*names, *LIBRARIES]))
    (programs,) = files.glob("usr/lib/linux-kbuild-*")
    for name, real in PROGRAMS.items():
        program = programs / name
        program.write_text(WITH_LIBRARIES.format(files=files, program=program.with_name(real)))
    tree = source(files, "drivers/dma/*") / "drivers/dma"
    work = folder / "modules"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(tree / "idxd", work / "idxd")
    for name in ("dmatest.c", "dmaengine.h"):
        shutil.copy(tree / name, work)
    without_the_store(work / "idxd")
    (work / "Makefile").write_text("obj-m := dmatest.o idxd/\n")
    build_modules(headers_in(files), work, *OPTIONS)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in MODULES:
            archive.add(work / name, Path(name).name)
    return packed.getvalue()


def commands(descriptors: int) -> str:
    """What the guest does, to have so many descriptors carried out."""
    each = -(-descriptors // THREADS)
    return COMMANDS.replace("THREADS", str(THREADS)).replace("EACH", str(each))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, build, and say how to run what was built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--descriptors", type=int, default=100_000, metavar="N")
    asked = parser.parse_args(arguments)
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    system = System.read(Path("/etc/os-release").read_text())
    apt = Apt(folder / "apt-next", system, NEXT_SUITE[system.name])
    apt.update()
    (folder / "machine.toml").write_text(MACHINE)
    script = self_extracting(commands(asked.descriptors), build(apt, folder))
    (folder / "dsa.run").write_bytes(script)
    options = f"--machine {folder}/machine.toml --checks units --run {folder}/dsa.run"
    print(f"vtd live boot 7 {options} --append intel_iommu=on,sm_on --remap-interrupts")


if __name__ == "__main__":
    main()
