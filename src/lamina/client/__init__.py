"""A thin client of the Engine API."""
