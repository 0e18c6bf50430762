"""Rows turned into what is printed: text, JSON, or JSON lines."""
