"""Failure drills: each plays something that goes wrong, with its guard and without it."""
