"""Telling JSON from other text that starts with a bracket, such as the time of a log line."""

from __future__ import annotations

import json
import re
from typing import Any

_START = re.compile(r"\s*(?:\{|\[\s*[\[{\"\]]|\[[\s\d.,-]*\]\s*\Z)")
"""An object or a list; a number in brackets with text behind is the time of a line of a log."""


def is_json(text: str) -> bool:
    """Whether a text is meant as a JSON object or list."""
    return _START.match(text) is not None


def json_list(text: str, key: str) -> list[Any]:
    """The list in a JSON text, either itself or under ``key``; ValueError if there is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if isinstance(data, dict):
        data = data.get(key)
    if not isinstance(data, list):
        raise ValueError("a list is needed")
    return data
