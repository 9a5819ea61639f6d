"""RUN: commands, what surrounds them, and what they are shown."""
