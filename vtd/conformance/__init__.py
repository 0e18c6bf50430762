"""A kit of cases that runs inside a virtual machine, on whatever remapping unit is there."""
