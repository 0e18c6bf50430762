"""What commands end with; ``docs/exit-codes.md`` says for each what it stands for."""

from __future__ import annotations

FOUND = 1
"""Something was found, or is not as it should be."""
UNUSABLE = 2
"""Wrong use, or unusable input."""
INTERRUPTED = 130
"""Somebody pressed Ctrl-C, and nothing had been found."""
