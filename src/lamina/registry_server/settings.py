"""How a registry's server is set up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.registry_server.mirror import Upstream
from lamina.registry_server.rules import Anonymous


@dataclass(frozen=True)
class Settings:
    """Times are in seconds, sizes in bytes.

    *rules* is a file that takes the place of *anonymous*; *tokens* is whether clients are sent for a token rather than asked for a
    password each time. *unused_s* is how long a blob is kept that no manifest needs, *stale_upload_s* how long an upload that does
    not grow; *collect_every_s* is how often garbage is collected, and by *policies* tags are removed;
    *scrub_every_s* how often all blobs are hashed again; 0 is for never. A tag of an
    *upstream* is looked up again when it was last *fresh_s* ago.
    """

    root: Path
    passwords: Path | None = None
    anonymous: Anonymous = "push"
    rules: Path | None = None
    tokens: bool = False
    public_url: str = ""
    audit: Path | None = None
    policies: Path | None = None
    upstreams: Sequence[Upstream] = ()
    fresh_s: float = 60.0
    scrub_every_s: float = 0.0
    scrub_bytes_per_s: float = 20e6
    requests_per_minute: int = 0
    deletes: bool = True
    blob_limit: int = 100 << 30
    manifest_limit: int = 4 << 20
    unused_s: float = 86400.0
    stale_upload_s: float = 7 * 86400.0
    collect_every_s: float = 3600.0
