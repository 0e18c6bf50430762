"""What system software does to a unit: registers, the queue, page requests."""
