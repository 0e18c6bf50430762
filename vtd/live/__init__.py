"""Functions and remapping units of a machine, served to a virtual machine monitor by vfio-user."""
