"""The DMA-remapping caches."""
