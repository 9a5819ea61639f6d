"""One action for each of several names: a failure of one does not keep the others from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina.cli.output import stderr
from lamina.client.client import told
from lamina.errors import LaminaError, NotModified


def each(
    names: list[str],
    act: Callable[[str], object],
    show: Callable[[str, Any], str] = lambda name, result: name,
    *,
    is_failure: Callable[[LaminaError], bool] = lambda error: True,
    failed: list[str] | None = None,
) -> int:
    """Do something to each and print a line of it; returns the exit code, and adds the names that failed to *failed*.

    *is_failure* tells of an error whether it counts; it is printed all the same.
    """
    code = 0
    for name in names:
        try:
            print(show(name, act(name)), flush=True)
        except NotModified:
            print(name, flush=True)
        except LaminaError as error:
            stderr(told(error))
            if is_failure(error):
                code = 1
                if failed is not None:
                    failed.append(name)
    return code
