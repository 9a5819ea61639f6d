"""Waiting in tests for what comes about in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 30.0
POLL_S = 0.05


def wait_until(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Call *condition* until its result is true, and return it; fail with *what* was waited for when *patience_s* are over."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still not so after {patience_s:.0f} s: {what}"
        time.sleep(POLL_S)
    return value
