"""Ethernet: frames, checksums and hashes, and what can be at the other end of a cable."""
