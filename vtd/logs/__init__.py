"""Logs of kernels, hypervisors and firmware: faults, messages and what they say of the platform."""
