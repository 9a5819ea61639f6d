"""docker's contexts: where a daemon is, under a name (``docker context``; read, never written)."""

from __future__ import annotations

import hashlib
import json
import os
from typing import NamedTuple

from lamina.client.tls import TlsSettings
from lamina.errors import NotFound


class ContextNotFound(NotFound):
    """No context has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f'context "{name}": context not found')
        self.name = name


class Context(NamedTuple):
    """Where a context leads."""

    host: str
    tls: TlsSettings | None


def read_context(name: str) -> Context:
    """A context of docker's store. Raises ContextNotFound."""
    store = os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "contexts")
    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        with open(os.path.join(store, "meta", digest, "meta.json"), encoding="utf-8") as file:
            endpoint = json.load(file)["Endpoints"]["docker"]
        host = str(endpoint["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ContextNotFound(name) from None
    files = os.path.join(store, "tls", digest, "docker")
    if not os.path.isdir(files):
        return Context(host, None)
    paths = [os.path.join(files, f"{file}.pem") for file in ("ca", "cert", "key")]
    return Context(host, TlsSettings(*paths, verifies=not endpoint.get("SkipTLSVerify")))
