"""What authors of drivers build on is found by its name alone: one module defines it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFINED = re.compile(r"^(?:(?:class|def)\s+(\w+)|(\w+)(?:\s*:[^=\n]+)?\s*=(?!=))", re.MULTILINE)
NAMES = """
    AGGRESSIVE KEEPS_STALE Options PROFILES RemappingUnit UnitPort Audit DeviceTlbAudit QueueDriver
    FramePool PhysicalMemory TableBuilder first_stage_geometry second_stage_geometry PageRequest
    AddressWidth ContextEntry PasidDirectoryEntry PasidEntry PasidTranslationType RootEntry
    ScalableContextEntry ScalableRootEntry TranslationTableMode PostedInterruptDescriptor PostedIrte
    RemappableAddress RemappedIrte ContextCacheInvalidateDescriptor ContextGranularity
    DescriptorType DeviceTlbInvalidateDescriptor InterruptEntryCacheInvalidateDescriptor
    InterruptGranularity InvalidationWaitDescriptor IotlbGranularity IotlbInvalidateDescriptor
    PageGroupResponseDescriptor PasidCacheGranularity PasidCacheInvalidateDescriptor
    PasidDeviceTlbInvalidateDescriptor PasidIotlbGranularity PasidIotlbInvalidateDescriptor
    FaultRecording FaultStatus GlobalCommand GlobalStatus InterruptRemappingTableAddress
    RootTableAddress InterruptBlocked InterruptDelivered PageGroupResponseSent PageRequestReceived
    RequestBlocked ScenarioRun TranslationCaches FaultRecorder RegisterFile
"""


def test_a_name_of_the_library_is_one_thing() -> None:
    found: Counter[str] = Counter()
    for package in ("vtd", "devices", "pagetables"):
        for path in (ROOT / package).rglob("*.py"):
            found.update({"".join(each) for each in DEFINED.findall(path.read_text())})
    assert {name: found[name] for name in NAMES.split()} == dict.fromkeys(NAMES.split(), 1)


def signatures() -> list[tuple[str, set[str]]]:
    """Every function with the names of its parameters."""
    found = []
    for package in ("devices", "pagetables", "scripts", "tests", "vtd"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    of = node.args
                    names = {each.arg for each in (*of.posonlyargs, *of.args, *of.kwonlyargs)}
                    found.append((getattr(node, "name", "lambda"), names))
    return found


def test_pasid_and_privilege_go_side_by_side_in_requests_rather_than_in_signatures() -> None:
    """Three short forms of a port have both, and the options of ``vtd walk``."""
    every = signatures()
    assert len(every) > 5000
    both = sorted(name for name, names in every if names >= {"pasid", "privileged"})
    assert both == ["atomic", "read", "walk", "write"]
