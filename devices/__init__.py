"""PCI functions, buses and DMA ports; knows nothing of remapping."""
