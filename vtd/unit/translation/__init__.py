"""DMA remapping: from a request to a physical address or a fault."""
