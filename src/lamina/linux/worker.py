"""Heavy Python work in a process of its own, so that the event loop's process keeps its interpreter to itself.

A worker is a fresh interpreter that runs one function and ends: about 50 ms for jobs that take seconds, nothing kept in memory
between them, and cancelling a job is killing a process. Function, arguments, result and error travel by pickle over pipes that only
the two processes hold.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import sys
import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from lamina.errors import LaminaError
from lamina.linux import processes

P = ParamSpec("P")
T = TypeVar("T")

_BOOT = "from lamina.linux.worker import serve; serve()"


class WorkerDied(LaminaError):
    """A worker process ended without an answer: it was killed, or the interpreter crashed."""

    def __init__(self, function: str, returncode: int, stderr: str) -> None:
        super().__init__(f"worker for {function} ended with {returncode}: {stderr.strip()[-2000:]}")
        self.function = function
        self.returncode = returncode


async def run_in_worker(function: Callable[P, T], pass_fds: Sequence[int], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a module-level *function* in a new process and return its result; *pass_fds* keep their numbers there.

    Raises what the function raised, or WorkerDied. When the caller is cancelled the process is killed.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    request = pickle.dumps((function.__module__, function.__qualname__, args, kwargs))
    done = await processes.run([sys.executable, "-I", "-c", _BOOT], input=request, pass_fds=pass_fds)
    if done.returncode != 0 or not done.stdout:
        raise WorkerDied(name, done.returncode, done.stderr.decode(errors="replace"))
    succeeded, outcome = pickle.loads(done.stdout)  # noqa: S301 - written by our own child
    if succeeded:
        result: T = outcome
        return result
    raise outcome


def serve() -> None:
    """The worker's side: one request from standard input, one answer to what was standard output."""
    answer = os.dup(1)
    os.dup2(2, 1)  # a stray print must not spoil the answer
    threading.Thread(target=_end_with_reader, args=(answer,), daemon=True).start()
    module, qualified_name, args, kwargs = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by our parent
    try:
        function = importlib.import_module(module)
        for part in qualified_name.split("."):
            function = getattr(function, part)
        outcome = (True, function(*args, **kwargs))  # type: ignore[operator]
    except Exception as error:
        outcome = (False, _picklable(error))
    with open(answer, "wb") as file:
        pickle.dump(outcome, file)


def _end_with_reader(answer: int) -> None:
    """End this process when nobody is left to read its answer: a worker must not go on writing where the next daemon's does."""
    watch = select.poll()
    watch.register(answer, 0)  # errors are told unasked
    watch.poll()
    os._exit(1)


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
