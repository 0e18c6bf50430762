"""Device models, and the names under which a machine description asks for them."""

from __future__ import annotations

import importlib

from devices.function import PciFunction

MODELS = {
    "dma_engine": "devices.models.dma_engine:DmaEngine",
    "dsa": "devices.models.dsa:Dsa",
    "edu": "devices.models.edu:Edu",
    "inert": "devices.models.inert:Inert",
    "ioat": "devices.models.ioat:IoatEngine",
    "nic82576": "devices.models.nic82576.controller:Nic82576",
    "nvme": "devices.models.nvme.function:Nvme",
    "testdev": "devices.models.testdev:IommuTestdev",
    "virtio_blk": "devices.models.virtio_blk:VirtioBlk",
}
"""Name, and where the class is; it is imported when somebody wants it."""


def find_model(name: str) -> type[PciFunction]:
    """The class of a model; LookupError for a name that is none."""
    if name not in MODELS:
        raise LookupError(f"{name!r} is none of {', '.join(sorted(MODELS))}")
    module, _, attribute = MODELS[name].partition(":")
    found: type[PciFunction] = getattr(importlib.import_module(module), attribute)
    return found
