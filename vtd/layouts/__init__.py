"""Binary layouts of registers, queue descriptors and table entries: declarations only."""
