"""Performance monitoring and the enhanced command interface (VT-d 11.4.10 to 11.4.14)."""
