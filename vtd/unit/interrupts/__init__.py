"""Interrupt remapping and posting."""
