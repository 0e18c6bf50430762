"""Vectors, captures and recordings for tests: the repository's own, and all of the collection."""

from pathlib import Path

from tests.conftest import find_reference_folder

VECTORS = Path(__file__).parents[1] / "vectors"
CAPTURES = Path(__file__).parents[1] / "captures"
RECORDINGS = Path(__file__).parents[1] / "recordings"


def vector_files() -> list[Path]:
    """Every scenario file there is."""
    return [path for folder in _folders(VECTORS, "vectors") for path in _scenarios(folder)]


def capture_folders() -> list[Path]:
    """Every capture there is; the repository's copy where both have it."""
    folders: dict[str, Path] = {}
    for folder in _folders(CAPTURES, "captures"):
        for manifest in sorted(folder.glob("*/capture.json")):
            folders.setdefault(manifest.parent.name, manifest.parent)
    return list(folders.values())


def recordings() -> list[Path]:
    """Every live recording there is; the repository's copy where both have it."""
    collection = find_reference_folder()
    folders = [RECORDINGS] + ([] if collection is None else [collection / "live" / "recordings"])
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.jsonl.gz")):
            files.setdefault(path.name, path)
    return list(files.values())


def _folders(own: Path, name: str) -> list[Path]:
    collection = find_reference_folder()
    return [own] if collection is None else [own, collection / name]


def _scenarios(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith((".json", ".json.gz")))


def name_of(path: Path) -> str:
    """A short name for a test id."""
    return f"{path.parent.name}/{path.name.split('.')[0]}"
