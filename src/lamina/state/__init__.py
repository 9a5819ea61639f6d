"""The state that must be found and changed together: one SQLite database, without a word about what is in it."""

from lamina.state.database import Database, Schema

__all__ = ["Database", "Schema"]
