"""The engine: the services of one state root, put together.

It is a library: tests and programs use it in-process, the daemon puts HTTP before it. ``engine`` opens and closes the services in the
right order and reconciles them with what a last daemon left, ``events`` tells what happens, ``info`` what this host and engine are,
``doctor`` what the host lacks.
"""

from lamina.engine.engine import Engine, EngineOptions, open_engine

__all__ = ["Engine", "EngineOptions", "open_engine"]
