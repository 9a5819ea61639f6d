"""Images as ``images``, ``inspect`` and ``history`` show them (Engine API: ImageSummary, ImageInspect, HistoryResponseItem)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from lamina.container.times import parse_rfc3339, rfc3339
from lamina.engine import Engine
from lamina.errors import InvalidArgument
from lamina.image.history import HistoryStep
from lamina.image.store import Image
from lamina.oci.reference import Reference


def size_of(image: Image, engine: Engine) -> int:
    """Bytes of all layers, uncompressed; a layer that is missing counts as none."""
    return sum(engine.content.size(d) for d in image.config.diff_ids if engine.content.exists(d))


def summary(
    image: Image,
    engine: Engine,
    *,
    names: Sequence[Reference] | None = None,
    digests: Sequence[Reference] | None = None,
    shared: bool = False,
) -> dict[str, Any]:
    """An entry of ``GET /images/json``, with *names* and *digests* alone if some were asked for."""
    names = engine.images.names(image.image_id) if names is None else names
    digests = engine.images.digests(image.image_id) if digests is None else digests
    using = sum(1 for record in engine.containers if record.image_id == image.image_id)
    return {
        "Id": image.image_id,
        "ParentId": image.parent or "",
        "RepoTags": [name.familiar for name in names],
        "RepoDigests": repo_digests(image, names, digests),
        "Created": created_seconds(image),
        "Size": size_of(image, engine),
        "SharedSize": _shared_size(image, engine) if shared else -1,
        "Labels": image.config.run.labels or {},
        "Containers": using if shared else -1,
    }


def inspect(image: Image, engine: Engine) -> dict[str, Any]:
    """``GET /images/{name}/json``."""
    config = image.config
    tagged_ns = engine.images.tagged_ns(image.image_id)
    names = engine.images.names(image.image_id)
    return {
        "Id": image.image_id,
        "RepoTags": [name.familiar for name in names],
        "RepoDigests": repo_digests(image, names, engine.images.digests(image.image_id)),
        "Parent": image.parent or "",
        "Comment": config.comment,
        "Created": config.created or "1970-01-01T00:00:00Z",
        "DockerVersion": config.docker_version,
        "Author": config.author or "",
        "Config": run_config(image),
        "Architecture": config.platform.architecture,
        **({"Variant": config.platform.variant} if config.platform.variant else {}),
        "Os": config.platform.os,
        "Size": size_of(image, engine),
        "GraphDriver": {"Name": engine.lowers.name, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(tagged_ns) if tagged_ns else "0001-01-01T00:00:00Z"},
        "Descriptor": {
            "mediaType": image.manifest.media_type,
            "digest": image.manifest.descriptor.digest,
            "size": image.manifest.descriptor.size,
        },
    }


def run_config(image: Image) -> dict[str, Any]:
    """The image's ``config`` object with docker's empty fields filled in, and what lamina does not know kept."""
    base: dict[str, Any] = {"Env": None, "Cmd": None, "WorkingDir": "", "Entrypoint": None, "Labels": None, "User": ""}
    return base | dict(image.config.run_document)


def history_item(step: HistoryStep) -> dict[str, Any]:
    """An entry of ``GET /images/{name}/history``."""
    return {
        "Id": step.image_id or "<missing>",
        "Created": _seconds(step.entry.created),
        "CreatedBy": step.entry.created_by or "",
        "Tags": [name.familiar for name in step.names] or None,
        "Size": step.size_bytes,
        "Comment": step.entry.comment or "",
    }


def repo_digests(image: Image, names: Sequence[Reference], digests: Sequence[Reference]) -> list[str]:
    """``repository@digest`` for each digest that the image came by, and each other repository among its names."""
    known = {digest.familiar_repository for digest in digests}
    others = dict.fromkeys(name.familiar_repository for name in names if name.familiar_repository not in known)
    own = image.manifest.descriptor.digest
    return [*(digest.familiar for digest in digests), *(f"{repository}@{own}" for repository in others)]


def created_seconds(image: Image) -> int:
    """Unix time of an image's last instruction."""
    return _seconds(image.config.created)


def short_digest(text: str) -> str:
    """Twelve digits that stand for a text, for IDs that need not be found again."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _shared_size(image: Image, engine: Engine) -> int:
    others = {d for other in engine.images if other.image_id != image.image_id for d in other.config.diff_ids}
    return sum(engine.content.size(d) for d in image.config.diff_ids if d in others and engine.content.exists(d))


def _seconds(text: str | None) -> int:
    try:
        return parse_rfc3339(text) // 1_000_000_000 if text else 0
    except InvalidArgument:
        return 0
