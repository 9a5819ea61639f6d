"""``update``: other limits, and another restart policy, for containers that exist."""

from __future__ import annotations

from typing import Any

from lamina.cli.grammar import CommandFailed
from lamina.cli.options import host_fields, parse_update
from lamina.cli.output import stderr
from lamina.cli.values import restart_policy
from lamina.client.client import Client, quoted, told
from lamina.errors import LaminaError


def update(client: Client, argv: list[str]) -> int:
    """``lamina update``."""
    options = parse_update(argv)
    body = host_fields(options)
    if not body and options.restart is None:
        raise CommandFailed("you must provide one or more flags when using this command")
    if options.restart:
        try:
            body["RestartPolicy"] = restart_policy(options.restart)
        except ValueError as error:
            raise CommandFailed(str(error)) from None
    warnings: list[str] = []
    failures: list[str] = []
    for name in options.containers:
        try:
            answer: dict[str, Any] = client.request("POST", f"/containers/{quoted(name)}/update", body=body).json()
        except LaminaError as error:
            failures.append(told(error))
            continue
        print(name, flush=True)
        warnings += answer.get("Warnings") or []
    for warning in warnings:
        print(warning, flush=True)
    for failure in failures:
        stderr(failure)
    return 1 if failures else 0


COMMANDS = {"update": update}
