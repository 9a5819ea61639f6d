"""Health checks: a command that is run in a container again and again, and what its outcomes say of the container.

The rules are docker's (moby, daemon/health.go): a success makes a container healthy, a number of failures in a row unhealthy; failures
of one that is still starting do not count. A container whose checks are not run, as it has ended or is paused, counts as unhealthy.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from lamina.container.config import ContainerConfig, ExecConfig, HostConfig
from lamina.container.errors import ContainerNotFound
from lamina.container.record import HealthStatus, Record
from lamina.container.store import ContainerStore
from lamina.container.times import parse_rfc3339
from lamina.errors import InvalidArgument, LaminaError

_log = logging.getLogger(__name__)
_KEPT_PROBES = 5
_OUTPUT_BYTES = 4096
_NO_EXIT_CODE = -1
_DEFAULT_SHELL = ("/bin/sh", "-c")

OnFailure = Literal["none", "kill", "restart", "stop"]
ON_FAILURE = "lamina.health-on-failure"
"""The annotation that says what happens to a container that has become unhealthy: docker's API has no field for it."""


@dataclass(frozen=True)
class Check:
    """What is run and when; times in seconds. A start period is none, with an interval of its own, unless it was asked for."""

    argv: list[str]
    interval_s: float
    timeout_s: float
    start_period_s: float
    start_interval_s: float
    retries: int

    @classmethod
    def of(cls, config: ContainerConfig) -> Check | None:
        """The check that a complete config asks for, or None (docker's defaults for what it leaves open)."""
        wanted = config.healthcheck
        test = (wanted.test or []) if wanted is not None else []
        if wanted is None or not test or test[0] not in ("CMD", "CMD-SHELL"):
            return None
        return cls(
            argv=list(test[1:]) if test[0] == "CMD" else [*(config.shell or _DEFAULT_SHELL), *test[1:]],
            interval_s=(wanted.interval or 30_000_000_000) / 1e9,
            timeout_s=(wanted.timeout or 30_000_000_000) / 1e9,
            start_period_s=wanted.start_period / 1e9,
            start_interval_s=(wanted.start_interval or 5_000_000_000) / 1e9,
            retries=wanted.retries or 3,
        )


@dataclass(frozen=True)
class Probe:
    """One run of a check: times in Unix nanoseconds, and the exit code, -1 if it had none."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str


@dataclass
class Health:
    """What the checks of one container have said since they were begun."""

    failing_streak: int = 0
    probes: deque[Probe] = field(default_factory=lambda: deque(maxlen=_KEPT_PROBES))

    def judge(self, probe: Probe, before: HealthStatus, check: Check, started_ns: int) -> HealthStatus:
        """Take in one more outcome and return what the container is now."""
        self.probes.append(probe)
        if probe.exit_code == 0:
            self.failing_streak = 0
            return "healthy"
        is_young = (probe.start_ns - started_ns) / 1e9 < check.start_period_s
        if not (before == "starting" and is_young):
            self.failing_streak += 1
        return "unhealthy" if self.failing_streak >= check.retries else before


def checks_health(config: ContainerConfig) -> bool:
    """Whether a container has a check."""
    return Check.of(config) is not None


def on_failure(host: HostConfig) -> OnFailure:
    """What is to happen to a container that has become unhealthy. Raises InvalidArgument."""
    wanted = (host.annotations or {}).get(ON_FAILURE, "none")
    for known in get_args(OnFailure):
        if wanted == known:
            return known  # type: ignore[no-any-return]
    raise InvalidArgument(f"invalid {ON_FAILURE}: {wanted!r}: use one of {', '.join(get_args(OnFailure))}")


class Running(Protocol):
    """What health checks need of the containers' life (``Lifecycle`` is it)."""

    async def change(self, container_id: str, alter: Callable[[Record], Record], *, lasting: bool = True) -> Record:
        """Commit a changed record."""

    def tell(self, action: str, record: Record, attributes: Mapping[str, str] | None = None) -> None:
        """Tell the world."""

    async def kill(self, container_id: str) -> None:
        """End it at once."""

    async def restart(self, container_id: str) -> None:
        """End it and start it again."""

    async def stop(self, container_id: str) -> None:
        """Ask it to end."""


Run = Callable[[Record, str, ExecConfig, int], Awaitable[tuple[int, bytes]]]
"""(container, ID of the run, process, most bytes of output) → exit code and output; killed when cancelled."""


class HealthChecks:
    """Runs the checks of all containers."""

    def __init__(self, containers: ContainerStore, life: Running, run: Run) -> None:
        self._containers = containers
        self._life = life
        self._run = run
        self._health: dict[str, Health] = {}
        self._monitors: dict[str, asyncio.Task[None]] = {}
        self._actions: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Go on with the checks of the containers that run."""
        for record in self._containers:
            if record.state.status == "running":
                self._begin(record)

    def heard(self, action: str, record: Record, attributes: Mapping[str, str]) -> None:
        """Something has happened to a container."""
        if action == "start":
            self._health.pop(record.id, None)
        if action in ("start", "unpause"):
            self._begin(record)
        elif action in ("die", "pause", "destroy"):
            self._end(record.id)
        if action == "destroy":
            self._health.pop(record.id, None)

    def of(self, container_id: str) -> Health:
        """What the checks of a container have said."""
        return self._health.get(container_id) or Health()

    async def close(self) -> None:
        """Run no more checks."""
        tasks = [*self._monitors.values(), *self._actions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, record: Record) -> None:
        check = Check.of(record.config)
        if check is None:
            return
        self._end(record.id)
        self._health.setdefault(record.id, Health())
        task = asyncio.ensure_future(self._monitor(record, check))
        self._monitors[record.id] = task
        task.add_done_callback(_report)

    def _end(self, container_id: str) -> None:
        monitor = self._monitors.pop(container_id, None)
        if monitor is not None:
            monitor.cancel()

    async def _monitor(self, record: Record, check: Check) -> None:
        started_ns = parse_rfc3339(record.state.started_at)
        status = record.state.health
        while True:
            is_young = (time.time_ns() - started_ns) / 1e9 < check.start_period_s
            await asyncio.sleep(check.start_interval_s if is_young and status == "starting" else check.interval_s)
            probe = await self._probe(record, check)
            status = await self._take_in(record, probe, check, started_ns)

    async def _outcome(self, record: Record, exec_id: str, check: Check) -> tuple[int, str]:
        """Exit code and output of one run; whatever keeps it from being run is an outcome, too."""
        if not check.argv:
            return _NO_EXIT_CODE, "the health check has no command"
        try:
            async with asyncio.timeout(check.timeout_s):
                code, raw = await self._run(record, exec_id, ExecConfig(cmd=check.argv), _OUTPUT_BYTES + 1)
        except TimeoutError:
            return _NO_EXIT_CODE, f"Health check exceeded timeout ({_duration(check.timeout_s)})"
        except LaminaError as error:
            return _NO_EXIT_CODE, error.message
        return code, _shortened(raw)

    async def _probe(self, record: Record, check: Check) -> Probe:
        exec_id = secrets.token_hex(32)
        command = " ".join(check.argv)
        start_ns = time.time_ns()
        self._life.tell(f"exec_create: {command}", record, {"execID": exec_id})
        self._life.tell(f"exec_start: {command}", record, {"execID": exec_id})
        code, output = await self._outcome(record, exec_id, check)
        self._life.tell("exec_die", record, {"execID": exec_id, "exitCode": str(code)})
        return Probe(start_ns, time.time_ns(), code, output)

    async def _take_in(self, record: Record, probe: Probe, check: Check, started_ns: int) -> HealthStatus | None:
        """Judge the container by one more outcome, and return how it is now."""
        health = self._health[record.id]
        changed = False

        def judged(current: Record) -> Record:
            nonlocal changed
            if current.state.status != "running" or current.state.started_at != record.state.started_at:
                return current
            before = current.state.health or "starting"
            status = health.judge(probe, before, check, started_ns)
            changed = status != before
            return current.with_state(health=status) if changed else current

        with suppress(ContainerNotFound):
            current = await self._life.change(record.id, judged, lasting=False)
            if changed:
                self._life.tell(f"health_status: {current.state.health}", current)
                if current.state.health == "unhealthy":
                    self._act_on_failure(current)
            return current.state.health
        return None

    def _act_on_failure(self, record: Record) -> None:
        wanted = on_failure(record.host_config)
        actions = {"kill": self._life.kill, "restart": self._life.restart, "stop": self._life.stop}
        if wanted != "none":
            # a task of its own: the container's end ends the one that runs its checks
            task = asyncio.ensure_future(actions[wanted](record.id))
            self._actions.add(task)
            task.add_done_callback(self._actions.discard)
            task.add_done_callback(_report)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("a health check failed", exc_info=task.exception())


def _shortened(raw: bytes) -> str:
    text = raw[:_OUTPUT_BYTES].decode("utf-8", "replace")
    return f"{text}..." if len(raw) > _OUTPUT_BYTES else text


def _duration(seconds: float) -> str:
    """A length of time as Go writes it, for the lengths that checks have."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{head}{rest:g}s"
