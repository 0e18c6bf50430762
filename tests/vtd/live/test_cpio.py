"""Archives hold what was put into them, folders before what is in them."""

import stat

from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.live.newc import read_newc
from vtd.live.cpio import Archive

NAMES = st.text("abcdefgh-_.0", min_size=1, max_size=12).filter(lambda name: name.strip("."))


@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(tuple), st.binary(max_size=50)))
def test_files_come_back_and_folders_come_first(files: dict[tuple[str, ...], bytes]) -> None:
    paths = {"/".join(parts): content for parts, content in files.items()}
    folders = {"/".join(parts[:depth]) for parts in files for depth in range(1, len(parts))}
    archive = Archive()
    for path, content in paths.items():
        if path not in folders:
            archive.add(path, content)
    entries = read_newc(archive.pack())
    assert len(archive.pack()) % 4 == 0
    order = list(entries)
    for path, content in paths.items():
        if path in folders:
            assert stat.S_ISDIR(entries[path].mode)
            continue
        assert entries[path].content == content
        assert stat.S_ISREG(entries[path].mode)
        above = path.rpartition("/")[0]
        assert not above or order.index(above) < order.index(path)


def test_programs_links_and_devices_have_their_modes() -> None:
    archive = Archive()
    archive.add("bin/run", b"#!", executable=True)
    archive.link("bin/sh", "run")
    archive.character_device("dev/console", 5, 1)
    entries = read_newc(archive.pack())
    assert stat.filemode(entries["bin/run"].mode) == "-rwxr-xr-x"
    assert stat.filemode(entries["bin/sh"].mode) == "lrwxrwxrwx"
    assert entries["bin/sh"].content == b"run"
    assert stat.filemode(entries["dev/console"].mode) == "crw-------"
    assert entries["dev/console"].device == (5, 1)
