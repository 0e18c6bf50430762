"""The 82576 gigabit network controller: one port, SR-IOV, VMDq."""
