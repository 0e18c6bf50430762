"""The kernel's own tests of the copy engine, built to be run by ``vtd live boot``.

    python -m scripts.ioat_kernel_tests FOLDER

fetches packaged kernel sources and headers with apt into FOLDER and makes two scripts for ``--run``
of them: dmatest, a module that no Debian kernel has, for 6.1, and the VFIO driver test for
8086:2021, static, in both type 1 modes (packaged kernels have no IOMMUFD), for the newest kernel.
Its regions are of 64 MiB instead of 1 GiB, which a guest under TCG would pin for minutes; the
transfers are the same. On Debian 12 with gcc and make; nothing of it is part of this repository.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.kernel_modules import build_modules, headers_in, run, self_extracting, source, unpacked
from vtd.live.fetch import NEXT_SUITE, Apt, System

MACHINE = """\
[[unit]]
profile = "qemu"
base = 0xfd000000
include_all = true
set = { ir = 0, eim = 0, mhmv = 0 }

[[function]]
at = "00:04.0"
model = "ioat"
parameters = { channels = 2 }

[[function]]
at = "00:05.0"
model = "nvme"
"""
DMATEST = """\
insmod /tmp/payload timeout=4000 iterations=100 run=1
for turn in $(seq 60); do
	[ "$(cat /sys/module/dmatest/parameters/run)" = N ] && break
	sleep 1
done
dmesg | grep "dmatest.*summary"
"""
VFIO = """\
function=0000:00:04.0
echo vfio-pci >/sys/bus/pci/devices/$function/driver_override
echo $function >/sys/bus/pci/devices/$function/driver/unbind
echo $function >/sys/bus/pci/drivers_probe
chmod +x /tmp/payload
/tmp/payload $function 2>&1
"""
HELPER = """\
#include <assert.h>
#include <stdlib.h>
static inline void *checked_calloc(size_t count, size_t size)
{
	void *found = calloc(count, size);
	assert(found);
	return found;
}
#define calloc_assert checked_calloc
"""


def build_dmatest(apt: Apt, folder: Path) -> bytes:
    """The module for the kernel of this release."""
    names = [name for name in apt.needed("linux-headers-amd64") if name.startswith("linux-")]
    series = next(name for name in names if "kbuild" in name).removeprefix("linux-kbuild-")
    packages = apt.download([*names, f"linux-source-{series}"])
    files = unpacked(folder / "own", packages)
    tree = source(files, "drivers/dma/dmatest.c")
    work = folder / "dmatest"
    work.mkdir(exist_ok=True)
    shutil.copy(tree / "drivers/dma/dmatest.c", work)
    (work / "Makefile").write_text("obj-m := dmatest.o\n")
    build_modules(headers_in(files), work)
    return (work / "dmatest.ko").read_bytes()


def build_vfio_test(apt: Apt, own: Apt, folder: Path) -> bytes:
    """The VFIO driver test of the newest packaged kernel, for type 1 alone."""
    needed = apt.needed("linux-source")
    package = next(name for name in needed if name.startswith("linux-source-"))
    files = unpacked(folder / "next", apt.download([package, "linux-libc-dev"]))
    files = unpacked(files, own.download(["uuid-dev"]))
    tree = source(
        files, "tools/testing/selftests/vfio/*", "tools/testing/selftests/*.h", "tools/include/*",
        "tools/arch/x86/include/*", "include/linux/pci_ids.h", "drivers/dma/ioat/*",
        "drivers/dma/idxd/*",
    )  # fmt: skip
    tests = tree / "tools/testing/selftests/vfio"
    test, modes = tests / "vfio_pci_driver_test.c", tests / "lib/include/libvfio/iommu.h"
    test.write_text(test.read_text().replace("SZ_1G", "SZ_64M"))
    without = r"^FIXTURE_VARIANT_ADD_IOMMU_MODE\(iommufd.*\n"
    modes.write_text(re.sub(without, "", modes.read_text(), flags=re.MULTILINE))
    iommu = tests / "lib/iommu.c"
    default = "= MODE_IOMMUFD;"
    iommu.write_text(iommu.read_text().replace(default, "= MODE_VFIO_TYPE1V2_IOMMU;"))
    (folder / "helper.h").write_text(HELPER)
    include = [tests / "lib/include", tree / "tools/include", tree / "tools/testing/selftests",
               tree / "tools/arch/x86/include"]  # fmt: skip
    system = [files / "usr/lib/linux/uapi/x86", files / "usr/include"]
    command: list[str | Path] = ["gcc", "-O2", "-static", "-w", "-D_GNU_SOURCE", "-pthread"]
    command += ["-include", folder / "helper.h", "-o", folder / "vfio-test"]
    command += [f"-I{each}" for each in include] + [f"-isystem{each}" for each in system]
    command += [test, *tests.glob("lib/*.c"), *tests.glob("lib/drivers/*/*.c")]
    run([*command, files / "usr/lib/x86_64-linux-gnu/libuuid.a"])
    run(["strip", folder / "vfio-test"])
    return (folder / "vfio-test").read_bytes()


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, build, and say how to run what was built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    system = System.read(Path("/etc/os-release").read_text())
    own = Apt(folder / "apt-own", system, system.codename)
    newer = Apt(folder / "apt-next", system, NEXT_SUITE[system.name])
    for each in (own, newer):
        each.update()
    (folder / "machine.toml").write_text(MACHINE)
    for name, commands, payload in (
        ("dmatest", DMATEST, build_dmatest(own, folder)),
        ("vfio", VFIO, build_vfio_test(newer, own, folder)),
    ):
        (folder / f"{name}.run").write_bytes(self_extracting(commands, payload))
    for kernel, name in (("6.1", "dmatest"), ("7", "vfio")):
        options = f"--machine {folder}/machine.toml --checks units --run {folder}/{name}.run"
        print(f"vtd live boot {kernel} {options}")


if __name__ == "__main__":
    main()
