"""One remapping hardware unit."""
