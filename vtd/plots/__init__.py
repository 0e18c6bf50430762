"""Plots of what sweeps counted."""
