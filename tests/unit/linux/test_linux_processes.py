"""Programs are run by the event loop alone, and none outlives a caller that gave up."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamina.linux import processes
from lamina.linux.worker import run_in_worker


async def test_what_a_program_reads_writes_and_returns() -> None:
    data = os.urandom(3 << 20)
    done = await processes.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], input=data)
    assert (done.returncode, done.stdout, done.stderr) == (3, data, b"wrong\n")


async def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert (await processes.run(["true"], input=bytes(1 << 20))).returncode == 0


async def test_programs_that_wait_take_no_thread_from_others() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=2))
    reading, writing = os.pipe()
    stalled = [asyncio.ensure_future(run_in_worker(os.read, (reading,), reading, 1)) for _ in range(4)]
    try:
        assert await asyncio.wait_for(run_in_worker(os.getcwd, ()), 30)
    finally:
        os.close(writing)
        await asyncio.gather(*stalled, return_exceptions=True)
        os.close(reading)


@pytest.mark.parametrize("delay", [0, 0.001, 0.1])
async def test_a_program_has_ended_when_its_cancelled_caller_goes_on(tmp_path: Path, delay: float) -> None:
    marker = f"7{int(time.monotonic_ns())}"
    running = asyncio.ensure_future(processes.run(["sleep", marker]))
    await asyncio.sleep(delay)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(marker in _command_line(p) for p in Path("/proc").glob("[0-9]*"))


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
