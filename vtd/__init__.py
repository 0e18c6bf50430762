"""Intel VT-d remapping hardware and its firmware table."""
