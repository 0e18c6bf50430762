"""Scenario files and captures of machines: read, carried out on a unit, and compared."""
