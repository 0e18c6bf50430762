"""Passthrough designs: a plan of guests and devices, its verdict, its run, and drills."""
