"""What every chapter of the unit speaks of: requests, their tables, their faults."""
