"""Sweeps: one trace through many cache designs, with misses, table reads and what they cost."""
