"""The matrix: for every parameter and field of the container endpoints what is sent and what must be observable then."""

import pytest

TABLES = ("create", "host", "limit", "mount", "network", "update", "life", "commit", "stream", "exec")

pytest.register_assert_rewrite("compat.matrix.lab", *(f"compat.matrix.{name}_cases" for name in TABLES))
