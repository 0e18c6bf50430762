"""Browsing a capture or a machine in a terminal: places to look at, and the window on them."""
