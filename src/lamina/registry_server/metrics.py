"""What the server counts, in Prometheus' text format; the files are shared by its processes, so that each tells of all."""

from __future__ import annotations

import os
from pathlib import Path


class Metrics:
    """Requests by method, kind and status, and the bytes of blobs in both directions."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)  # read when the library is imported
        from prometheus_client import CollectorRegistry, Counter, Histogram
        from prometheus_client.multiprocess import MultiProcessCollector

        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        self._requests = Counter("lamina_registry_requests", "Requests answered", ("method", "kind", "status"))
        self._seconds = Histogram("lamina_registry_request_seconds", "Time until the answer began", ("kind",))
        self._bytes = Counter("lamina_registry_blob_bytes", "Bytes of blobs", ("direction",))

    def answered(self, method: str, kind: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, kind, str(status)).inc()
        self._seconds.labels(kind).observe(seconds)

    def sent(self, count: int) -> None:
        """Bytes of a blob go to a client."""
        self._bytes.labels("out").inc(count)

    def received(self, count: int) -> None:
        """Bytes of a blob came."""
        self._bytes.labels("in").inc(count)

    def text(self, gauges: dict[str, int]) -> bytes:
        """Everything, with some numbers of the moment."""
        from prometheus_client import generate_latest

        lines = [
            f"# TYPE lamina_registry_{name} gauge\nlamina_registry_{name} {value}\n" for name, value in gauges.items()
        ]
        return generate_latest(self._registry) + "".join(lines).encode()
