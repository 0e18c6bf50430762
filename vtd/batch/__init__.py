"""Millions of requests at once: arrays of them in, outcomes and the unit's new state out."""
