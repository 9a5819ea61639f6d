"""How often one client may ask: a bucket each, that fills by the minute. Each process counts for itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lamina.registry_server.errors import RegistryError

_MINUTE_S = 60.0
_MOST_CLIENTS = 10_000


class TooManyRequests(RegistryError):
    """A client asks too often; *wait_s* is when it may again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(429, "TOOMANYREQUESTS", "too many requests")
        self.wait_s = wait_s


@dataclass
class RateLimit:
    """So many requests a minute for each client, 0 for any number."""

    per_minute: int = 0
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, client: str) -> None:
        """Count a request. Raises TooManyRequests."""
        if not self.per_minute:
            return
        now = time.monotonic()
        left, last = self._buckets.get(client, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - last) * self.per_minute / _MINUTE_S)
        if left < 1:
            self._buckets[client] = (left, now)
            raise TooManyRequests((1 - left) * _MINUTE_S / self.per_minute)
        if len(self._buckets) >= _MOST_CLIENTS and client not in self._buckets:
            self._buckets.pop(next(iter(self._buckets)))
        self._buckets[client] = (left - 1, now)
