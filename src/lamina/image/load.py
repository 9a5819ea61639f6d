"""Load: the images of an archive, docker's or OCI's, become images of the store with every digest kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.content import DigestMismatch
from lamina.content.store import Lease
from lamina.image.archive import StagedLayer, Unpacked, unpack
from lamina.image.errors import InvalidArchive
from lamina.image.intake import LayerIntake
from lamina.image.mutate import plain_manifest
from lamina.image.store import Image, ImageStore
from lamina.layer.ingest import IngestedLayer, Limits
from lamina.layer.merge import merge
from lamina.layer.tree import load as load_tree
from lamina.linux.pipes import feed
from lamina.linux.worker import run_in_worker
from lamina.oci.config import ImageConfig
from lamina.oci.descriptor import DOCKER_LIST, OCI_INDEX, Descriptor, layer_compression
from lamina.oci.digest import DiffID, Digest
from lamina.oci.manifest import Index, Manifest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Loaded:
    """An image that came in, with the names that the archive gave it."""

    image: Image
    names: tuple[Reference, ...]


@dataclass(frozen=True)
class _Candidate:
    config: ImageConfig
    layers: tuple[StagedLayer, ...]
    manifest: Manifest | None
    names: tuple[Reference, ...]


async def load(
    images: ImageStore, intake: LayerIntake, archive: AsyncIterable[bytes], *, may_lack_stored: bool = False
) -> list[Loaded]:
    """Store every image of an archive for this platform, with its names; an existing name moves to the image loaded.

    The archive *may lack* layers that are *stored* already, in the same form.

    All layers are checked against the config's diff IDs and the manifest's digests, and stacked for a try, before anything is recorded.
    Blobs that are stored already and damaged are replaced.
    Raises InvalidArchive, InvalidLayer, DigestMismatch or InvalidDocument; nothing is left behind then.
    """
    staging = intake.content.temporary_path()
    staging.mkdir()

    async def read(fd: int) -> list[_Candidate]:
        return await run_in_worker(read_archive, (fd,), fd, staging, intake.limits, stored)

    try:
        with intake.content.lease() as lease:
            stored = await _stored_layers(images, intake, lease) if may_lack_stored else {}
            candidates = await feed(archive, read)
            return [await _record(candidate, images, intake, lease) for candidate in candidates]
    finally:
        shutil.rmtree(staging, ignore_errors=True)


async def _stored_layers(images: ImageStore, intake: LayerIntake, lease: Lease) -> dict[str, StagedLayer]:
    """The layers of the images that are stored, by the names that archives have for their blobs."""
    found = {}
    for blob, diff_id in layers_of(images).items():
        lease.add(blob.digest, diff_id)
        if intake.content.exists(blob.digest) and intake.content.exists(diff_id):
            tar = intake.content.path(diff_id)
            size = tar.stat().st_size
            layer = IngestedLayer(diff_id, size, 0, blob.digest, blob.size, layer_compression(blob.media_type))
            (tree,) = await intake.trees.paths([diff_id])
            found[_blob_name(blob.digest)] = StagedLayer(layer, tar, tree, intake.content.path(blob.digest), True)
    return found


def layers_of(images: ImageStore) -> dict[Descriptor, DiffID]:
    """The layers of all images, in the forms that their manifests name."""
    pairs = (pair for i in images for pair in zip(i.manifest.layers, i.config.diff_ids, strict=True))
    return {Descriptor(layer.media_type, layer.digest, layer.size): diff_id for layer, diff_id in pairs}


def read_archive(source_fd: int, staging: Path, limits: Limits, stored: Mapping[str, StagedLayer]) -> list[_Candidate]:
    """The images of an archive, checked, their layers' files below *staging*. Blocking; for a worker: what else the archive held,
    however much it is, ends with it."""
    unpacked = unpack(source_fd, staging, limits)
    unpacked.stored = stored
    candidates = list(_candidates(unpacked))
    if not candidates:
        raise InvalidArchive("it holds neither manifest.json nor an index.json with an image for this platform")
    for candidate in candidates:
        _check_config(candidate.config)
    for trees in dict.fromkeys(tuple(staged.tree for staged in candidate.layers) for candidate in candidates):
        merge([load_tree(tree) for tree in trees])
    return candidates


async def _record(candidate: _Candidate, images: ImageStore, intake: LayerIntake, lease: Lease) -> Loaded:
    for staged in candidate.layers:
        if staged.tar.exists() and not staged.is_stored:
            keep = candidate.manifest is not None
            await intake.repair(staged.layer, lease, staged.tar, staged.tree, staged.blob if keep else None)
    sizes = [staged.layer.tar_size for staged in candidate.layers]
    manifest = candidate.manifest or plain_manifest(candidate.config, sizes)
    image = await images.add(candidate.config, manifest, tags=candidate.names)
    return Loaded(image, candidate.names)


def _check_config(config: ImageConfig) -> None:
    """Refuse what docker refuses: an image for another system, a history with more layers than there are."""
    if config.platform.os != "linux":
        raise InvalidArchive(f"cannot load {config.platform.os} image on linux")
    if sum(not entry.empty_layer for entry in config.history) > len(config.diff_ids):
        raise InvalidArchive("too many non-empty layers in History section")


def _candidates(unpacked: Unpacked) -> Iterator[_Candidate]:
    """The images of an archive; one that has both forms (docker's since 25) is read by its OCI half, which keeps more."""
    docker = _docker_entries(unpacked)
    if "index.json" in unpacked.documents:
        tags = {config: names for (config, _), names in docker.items()}
        yield from _oci_candidates(unpacked, tags)
        return
    for (config_name, layer_names), names in docker.items():
        config = ImageConfig.parse(_document(unpacked, config_name))
        layers = tuple(_layer(unpacked, name) for name in layer_names)
        _check_layers(config, layers)
        yield _Candidate(config, layers, None, names)


_DockerEntries = dict[tuple[str, tuple[str, ...]], tuple[Reference, ...]]


def _docker_entries(unpacked: Unpacked) -> _DockerEntries:
    """manifest.json: (config entry, layer entries) → names."""
    result: _DockerEntries = {}
    if "manifest.json" not in unpacked.documents:
        return result
    try:
        for entry in _json(unpacked.documents["manifest.json"], "manifest.json"):
            key = unpacked.resolve(str(entry["Config"])), tuple(str(name) for name in entry["Layers"] or ())
            names = map(_tagged, entry.get("RepoTags") or ())
            result[key] = tuple(dict.fromkeys((*result.get(key, ()), *names)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidArchive(f"manifest.json: unexpected form ({error})") from error
    return result


def _tagged(text: str) -> Reference:
    """A name of docker's manifest.json, which must have a tag."""
    name = Reference.parse(text)
    if name.tag is None:
        raise InvalidArchive(f'invalid tag "{text}"')
    return name


def _oci_candidates(unpacked: Unpacked, tags: dict[str, tuple[Reference, ...]]) -> Iterator[_Candidate]:
    index = Index.parse(unpacked.documents["index.json"])
    found: dict[Digest, _Candidate] = {}
    for descriptor in index.manifests:
        pointer = _for_this_platform(unpacked, descriptor)
        if pointer is None:
            continue
        manifest = Manifest.parse(_blob(unpacked, pointer.digest), pointer.media_type)
        config = ImageConfig.parse(_blob(unpacked, manifest.config.digest))
        layers = tuple(_layer(unpacked, _blob_name(layer.digest)) for layer in manifest.layers)
        _check_layers(config, layers)
        _check_blobs(manifest, layers)
        names = _annotated_names(descriptor) or tags.get(_blob_name(manifest.config.digest), ())
        earlier = found.get(manifest.descriptor.digest)
        merged = tuple(dict.fromkeys((*(earlier.names if earlier else ()), *names)))
        found[manifest.descriptor.digest] = _Candidate(config, layers, manifest, merged)
    yield from found.values()


def _for_this_platform(unpacked: Unpacked, descriptor: Descriptor) -> Descriptor | None:
    """The manifest that an index entry means here: itself, or the one of this platform in a nested index."""
    if descriptor.media_type not in (OCI_INDEX, DOCKER_LIST):
        return descriptor
    index = Index.parse(_blob(unpacked, descriptor.digest), descriptor.media_type)
    served = (n for n in index.for_platform(Platform.of_host()) if _blob_name(n.digest) in unpacked.documents)
    return next(served, None)


def _annotated_names(descriptor: Descriptor) -> tuple[Reference, ...]:
    annotations = descriptor.annotations or {}
    name = annotations.get(_IMAGE_NAME) or annotations.get(_REF_NAME)
    # a bare tag, as skopeo writes it into an archive without a repository, names nothing by itself
    if not name or (_IMAGE_NAME not in annotations and not any(c in name for c in ":/")):
        return ()
    return (Reference.parse_tagged(name),)


def _check_layers(config: ImageConfig, layers: tuple[StagedLayer, ...]) -> None:
    if len(layers) != len(config.diff_ids):
        raise InvalidArchive(f"{len(layers)} layers where the config of {config.image_id} lists {len(config.diff_ids)}")
    for staged, expected in zip(layers, config.diff_ids, strict=True):
        if staged.layer.diff_id != expected:
            raise DigestMismatch(expected, staged.layer.diff_id)


def _check_blobs(manifest: Manifest, layers: tuple[StagedLayer, ...]) -> None:
    for staged, descriptor in zip(layers, manifest.layers, strict=True):
        if staged.layer.blob_digest != descriptor.digest:
            raise DigestMismatch(descriptor.digest, staged.layer.blob_digest)


def _layer(unpacked: Unpacked, name: str) -> StagedLayer:
    entry = unpacked.resolve(name)
    if entry in unpacked.rejected:
        raise InvalidArchive(f"layer {name}: {unpacked.rejected[entry]}")
    if entry in unpacked.stored and entry not in unpacked.layers:
        return unpacked.stored[entry]
    if entry not in unpacked.layers:
        raise InvalidArchive("it lacks a layer that its manifest names", [name])
    return unpacked.layers[entry]


def _document(unpacked: Unpacked, name: str) -> bytes:
    entry = unpacked.resolve(name)
    if entry not in unpacked.documents:
        raise InvalidArchive("it lacks a document that it names", [name])
    return unpacked.documents[entry]


def _blob(unpacked: Unpacked, digest: Digest) -> bytes:
    data = _document(unpacked, _blob_name(digest))
    if Digest.of(data) != digest:
        raise DigestMismatch(digest, Digest.of(data))
    return data


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"{name}: {error}") from error
