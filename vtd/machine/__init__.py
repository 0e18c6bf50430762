"""A machine as one TOML description: memory, remapping units, PCI tree, device models."""
