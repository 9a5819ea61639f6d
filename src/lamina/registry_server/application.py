"""The endpoints (distribution-spec, "Endpoints"), and docker's older ones that go beyond: the catalog, and uploads' states."""

from __future__ import annotations

import logging
import math
import os
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from lamina.errors import LaminaError
from lamina.http import FileResponse, Request, Response, StreamingResponse
from lamina.http.connection import Answer
from lamina.oci.descriptor import OCI_INDEX
from lamina.oci.digest import Digest, InvalidDigest
from lamina.registry_server import errors
from lamina.registry_server.access import Access, Visitor
from lamina.registry_server.audit import AuditLog
from lamina.registry_server.catalog import Catalog
from lamina.registry_server.documents import read_document
from lamina.registry_server.errors import RegistryError
from lamina.registry_server.limits import RateLimit, TooManyRequests
from lamina.registry_server.metrics import Metrics
from lamina.registry_server.mirror import Mirror
from lamina.registry_server.rules import Action
from lamina.registry_server.settings import Settings
from lamina.registry_server.storage import Storage
from lamina.registry_server.uploads import Uploads
from lamina.registry_server.webhooks import Happened, Webhooks

_log = logging.getLogger("lamina.registry")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LONGEST_NAME = 255
_OPEN = ("health", "token")
_FIXED = {
    "/v2": "base",
    "/v2/": "base",
    "/v2/_catalog": "catalog",
    "/v2/_catalog/": "catalog",
    "/token": "token",
    "/metrics": "metrics",
    "/": "health",
    "/healthz": "health",
    "/livez": "health",
    "/readyz": "health",
}
_LONGEST_FORM = 64 << 10
_LONGEST_NUMBER = 18
_LARGEST_PAGE = 100_000
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/.*)?")


@dataclass(frozen=True)
class Target:
    """What a request is about: ``blobs`` in a repository, with the rest of the path; and who is asking."""

    kind: str
    repository: str = ""
    rest: str = ""
    visitor: Visitor = Visitor()


class Application:
    """Answers requests."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        catalog: Catalog,
        access: Access,
        metrics: Metrics,
        mirror: Mirror,
        webhooks: Webhooks,
        scheme: str,
    ) -> None:
        """*scheme* is what clients speak to reach this server, where no public URL says so."""
        self._scheme = scheme
        self._limit = RateLimit(settings.requests_per_minute)
        self._audit = AuditLog(settings.audit)
        self._settings = settings
        self._storage = storage
        self._catalog = catalog
        self._access = access
        self._metrics = metrics
        self._mirror = mirror
        self._webhooks = webhooks
        self._uploads = Uploads(storage, catalog, settings.blob_limit)
        self._kinds: dict[str, Callable[[Request, Target], Awaitable[Answer]]] = {
            "base": self._base,
            "catalog": self._list_repositories,
            "tags": self._list_tags,
            "manifests": self._manifest,
            "blobs": self._blob,
            "uploads": self._upload,
            "referrers": self._referrers,
            "metrics": self._show_metrics,
            "health": self._health,
            "token": self._token,
        }

    async def handle(self, request: Request) -> Answer:
        """Answer one request; every error becomes a response in the specification's form."""
        began = time.monotonic()
        target = Target("other")
        try:
            target = target_of(request.path)
            if target.kind not in self._kinds:
                raise errors.no_such_page()
            if request.query("ns") and target.repository:
                target = replace(target, repository=self._mirror.local_name(target.repository, request.query("ns")))
            if target.kind in _OPEN:
                self._limit.take(request.channel.peer)
            else:
                target = replace(target, visitor=await self._admitted(request, target))
            answer = await self._kinds[target.kind](request, target)
        except RegistryError as error:
            answer = self._told(error, request, target)
        except InvalidDigest as error:
            answer = self._told(errors.digest_invalid(str(error)), request, target)
        except (LaminaError, OSError, sqlite3.Error) as error:
            if isinstance(error, ConnectionError):
                raise
            _log.exception("%s %s", request.method, request.path)
            answer = self._told(errors.failed(str(error)), request, target)
        self._metrics.answered(request.method, target.kind, answer.status, time.monotonic() - began)
        self._audit.tell(
            user=target.visitor.user,
            client=request.channel.peer,
            method=request.method,
            repository=target.repository,
            what=f"{target.kind}/{target.rest}" if target.rest else target.kind,
            status=answer.status,
        )
        return answer

    async def _admitted(self, request: Request, target: Target) -> Visitor:
        """Who is asking, if that one may. Raises RegistryError."""
        authorization = request.headers.get("Authorization", "")
        self._limit.take(request.channel.peer)  # before a password is looked at: guesses count, too
        visitor = await self._access.visitor(authorization)
        if target.repository:
            self._access.check(visitor, _action(request.method, target), target.repository)
        elif target.kind == "metrics":
            self._access.check_known(visitor)
        else:
            self._access.check_named(visitor)
        return visitor

    def _told(self, error: RegistryError, request: Request, target: Target) -> Response:
        body = {"errors": [{"code": error.code, "message": str(error), "detail": error.detail}]}
        headers = {}
        if error.status == 401:
            base = self._settings.public_url or f"{self._scheme}://{request.headers.get('Host', '')}"
            actions = {"pull": "pull", "push": "pull,push", "delete": "delete"}[_action(request.method, target)]
            scope = f"repository:{target.repository}:{actions}" if target.repository else ""
            headers["WWW-Authenticate"] = self._access.challenge(base, scope)
        if isinstance(error, errors.PartInvalid):
            headers["Content-Range"] = f"bytes */{error.size}"
        if isinstance(error, TooManyRequests):
            headers["Retry-After"] = str(math.ceil(error.wait_s))
        return Response(error.status, msgspec.json.encode(body), "application/json", headers)

    # ---- what is no repository's

    async def _base(self, request: Request, target: Target) -> Answer:
        _only(request, "GET", "HEAD")
        return Response(200, b"{}", "application/json")

    async def _token(self, request: Request, target: Target) -> Answer:
        _only(request, "GET", "POST")
        if self._access.tokens is None:
            raise errors.no_such_page()
        if request.method == "GET":
            lasting = request.query("offline_token") == "true"
            scopes = request.query_all("scope")
            given = await self._access.give_token(request.headers.get("Authorization", ""), scopes, lasting=lasting)
        else:
            data = await _read(request, _LONGEST_FORM, "the form")
            given = await self._access.give_oauth_token(dict(parse_qsl(data.decode("utf-8", "replace"))))
        return Response(200, msgspec.json.encode(given), "application/json", {"Cache-Control": "no-store"})

    async def _health(self, request: Request, target: Target) -> Answer:
        await self._catalog.answers()
        return Response(200, b'{"status":"ok"}\n', "application/json")

    async def _show_metrics(self, request: Request, target: Target) -> Answer:
        return Response(200, self._metrics.text(await self._catalog.counts()), "text/plain; version=0.0.4")

    async def _list_repositories(self, request: Request, target: Target) -> Answer:
        _only(request, "GET", "HEAD")
        last, limit = _paging(request)
        user = Visitor(target.visitor.user)  # the names of what one may pull, whatever a token was asked for
        found = await self._catalog.repositories(last, None)
        names = [name for name in found if self._access.allows(user, "pull", name)][: limit + 1]
        return _page({"repositories": names[:limit]}, names, limit, "/v2/_catalog")

    # ---- a repository's

    async def _list_tags(self, request: Request, target: Target) -> Answer:
        _only(request, "GET", "HEAD")
        last, limit = _paging(request)
        names = await self._catalog.tags(target.repository, last, limit + 1)
        body = {"name": target.repository, "tags": names[:limit]}
        return _page(body, names, limit, f"/v2/{target.repository}/tags/list")

    async def _referrers(self, request: Request, target: Target) -> Answer:
        _only(request, "GET", "HEAD")
        wanted = request.query("artifactType")
        found = await self._catalog.referrers(target.repository, Digest.parse(target.rest), wanted)
        entries = [
            {"mediaType": r.media_type, "digest": str(r.digest), "size": r.size}
            | ({"artifactType": r.artifact_type} if r.artifact_type else {})
            | ({"annotations": r.annotations} if r.annotations else {})
            for r in found
        ]
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        return Response(200, msgspec.json.encode(body), OCI_INDEX, headers)

    async def _manifest(self, request: Request, target: Target) -> Answer:
        _only(request, "GET", "HEAD", "PUT", "DELETE")
        reference = target.rest
        if ":" in reference:
            Digest.parse(reference)
        elif not _TAG.fullmatch(reference):
            raise (
                errors.manifest_invalid("its tag is none")
                if request.method == "PUT"
                else errors.manifest_unknown(reference)
            )
        if request.method == "PUT":
            return await self._put_manifest(request, target, reference)
        if request.method == "DELETE":
            self._check_deletes()
            await self._catalog.delete_manifest(target.repository, reference)
            digest, tag = (Digest(reference), None) if ":" in reference else (None, reference)
            self._webhooks.tell(Happened("delete", target.repository, target.visitor.user, digest, tag))
            return Response(202)
        found = await self._mirror.manifest(target.repository, reference)
        headers = {"Docker-Content-Digest": str(found.digest), "ETag": f'"{found.digest}"'}
        if request.headers.get("If-None-Match", "").strip('"') == found.digest:
            return Response(304, headers=headers)
        return Response(200, found.data, found.media_type, headers)

    async def _put_manifest(self, request: Request, target: Target, reference: str) -> Answer:
        repository = target.repository
        data = await _read(request, self._settings.manifest_limit, "the manifest")
        document = read_document(data, request.headers.get("Content-Type", "").partition(";")[0].strip())
        is_digest = ":" in reference
        digest = Digest.parse(reference) if is_digest else Digest.of(data)
        if is_digest and not digest.matches(data):
            raise errors.digest_invalid(f"it is {Digest.of(data)}")
        tag = None if is_digest else reference
        await self._catalog.put_manifest(repository, tag, digest, document.media_type, data, document)
        self._webhooks.tell(
            Happened("push", repository, target.visitor.user, digest, tag, document.media_type, len(data))
        )
        headers = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": str(digest)}
        if document.subject is not None:
            headers["OCI-Subject"] = str(document.subject)
        return Response(201, headers=headers)

    async def _blob(self, request: Request, target: Target) -> Answer:
        _only(request, "GET", "HEAD", "DELETE")
        digest = Digest.parse(target.rest)
        if request.method == "DELETE":
            self._check_deletes()
            await self._catalog.delete_blob(target.repository, digest)
            return Response(202)
        try:
            size = await self._catalog.blob_size(target.repository, digest)
        except RegistryError:
            return await self._blob_elsewhere(request, target.repository, digest)
        headers = _of_blob(digest) | {"Accept-Ranges": "bytes"}
        offset, length, status = _part(request.headers.get("Range", ""), size)
        if status == 206:
            headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{size}"
        try:
            file = self._storage.open_blob(digest)
        except FileNotFoundError:  # it was damaged and set aside: its registry may have it, if it is another's
            return await self._blob_elsewhere(request, target.repository, digest)
        if os.fstat(file.fileno()).st_size < size:
            file.close()
            raise errors.failed(f"blob {digest} is damaged")
        if request.method == "GET":
            self._metrics.sent(length)
        return FileResponse(file, offset, length, "application/octet-stream", status, headers)

    async def _blob_elsewhere(self, request: Request, repository: str, digest: Digest) -> Answer:
        """A blob that is another registry's, and not here yet."""
        if request.method == "HEAD":
            size = await self._mirror.blob_size(repository, digest)
            return FileResponse(_nothing(), 0, size, headers=_of_blob(digest))
        body = await self._mirror.blob(repository, digest)
        return StreamingResponse(body, "application/octet-stream", headers=_of_blob(digest))

    # ---- uploads

    async def _upload(self, request: Request, target: Target) -> Answer:
        _only(request, "POST", "GET", "PATCH", "PUT", "DELETE")
        if not target.rest:
            if request.method != "POST":
                raise errors.unsupported(f"{request.method} is not done here")
            return await self._begin_upload(request, target)
        upload_id = target.rest
        match request.method:
            case "GET":
                size = await self._uploads.size(target.repository, upload_id)
                return _under_way(204, target.repository, upload_id, size)
            case "PATCH":
                size = await self._append(request, target.repository, upload_id)
                return _under_way(202, target.repository, upload_id, size)
            case "PUT":
                return await self._finish_upload(request, target.repository, upload_id)
            case "DELETE":
                await self._uploads.cancel(target.repository, upload_id)
                return Response(204)
        raise errors.unsupported(f"{request.method} is not done here")

    async def _begin_upload(self, request: Request, target: Target) -> Answer:
        repository = target.repository
        mounted, source = request.query("mount"), request.query("from")
        if mounted and source and _NAME.fullmatch(source):
            digest = Digest.parse(mounted)
            if self._access.allows(target.visitor, "pull", source) and await self._catalog.mount(
                repository, digest, source
            ):
                return _stored(repository, digest)
        upload_id = await self._uploads.begin(repository)
        if request.query("digest"):
            return await self._finish_upload(request, repository, upload_id)
        return _under_way(202, repository, upload_id, 0)

    async def _append(self, request: Request, repository: str, upload_id: str) -> int:
        start, length = None, None
        text = request.headers.get("Content-Range", "")
        if text:
            match = _CONTENT_RANGE.fullmatch(text.strip())
            if match is None or int(match[2]) < int(match[1]) - 1:
                raise errors.range_invalid(f"invalid Content-Range {text[:80]!r}")
            start, length = int(match[1]), int(match[2]) - int(match[1]) + 1
        before = await self._uploads.size(repository, upload_id)
        size = await self._uploads.append(repository, upload_id, aiter(request.body), start=start, length=length)
        self._metrics.received(size - before)
        return size

    async def _finish_upload(self, request: Request, repository: str, upload_id: str) -> Answer:
        text = request.query("digest")
        if not text:
            raise errors.digest_invalid("the parameter digest is missing")
        digest = Digest.parse(text)
        await self._append(request, repository, upload_id)
        await self._uploads.finish(repository, upload_id, digest)
        return _stored(repository, digest)

    def _check_deletes(self) -> None:
        if not self._settings.deletes:
            raise errors.unsupported("this registry removes nothing")


def target_of(path: str) -> Target:
    """What a path is about. Raises RegistryError for a repository that cannot be."""
    if path in _FIXED:
        return Target(_FIXED[path])
    parts = unquote(path).split("/")
    if parts[:2] != ["", "v2"] or len(parts) < 5:
        return Target("other")
    inner = parts[2:]
    if inner[-2:] == ["tags", "list"]:
        return _of("tags", inner[:-2], "")
    if len(inner) >= 4 and inner[-3:-1] == ["blobs", "uploads"]:
        return _of("uploads", inner[:-3], inner[-1])
    if inner[-2:] == ["blobs", "uploads"]:
        return _of("uploads", inner[:-2], "")
    if inner[-2] in ("manifests", "blobs", "referrers"):
        return _of(inner[-2], inner[:-2], inner[-1])
    return Target("other")


def _of(kind: str, name: list[str], rest: str) -> Target:
    repository = "/".join(name)
    if not _NAME.fullmatch(repository) or len(repository) > _LONGEST_NAME:
        raise errors.name_invalid(repository)
    return Target(kind, repository, rest)


def _action(method: str, target: Target) -> Action:
    if method == "DELETE" and target.kind != "uploads":
        return "delete"
    return "pull" if method in ("GET", "HEAD") and target.kind != "uploads" else "push"


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise errors.unsupported(f"{request.method} is not done here")


def _paging(request: Request) -> tuple[str, int]:
    """``last`` and ``n`` of a listing."""
    text = request.query("n")
    if text and not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise RegistryError(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested", {"n": text[:80]})
    return request.query("last"), min(int(text) if text else _LARGEST_PAGE, _LARGEST_PAGE)


def _page(body: object, names: list[str], limit: int, path: str) -> Response:
    """One page of a listing; what *names* has behind it shows that there is another."""
    headers = {}
    if len(names) > limit > 0:
        headers["Link"] = f'<{path}?last={quote(names[limit - 1], safe="")}&n={limit}>; rel="next"'
    return Response(200, msgspec.json.encode(body), "application/json", headers)


async def _read(request: Request, limit: int, what: str) -> bytes:
    data = bytearray()
    async for piece in request.body:
        data += piece
        if len(data) > limit:
            raise errors.too_large(what, limit)
    return bytes(data)


def _part(text: str, size: int) -> tuple[int, int, int]:
    """Offset, length and status of the part of a blob that a Range asks for; what is no single range of bytes is all of it."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == ("", ""):
        return 0, size, 200
    first, last = match.groups()
    if first:
        offset, end = int(first), min(int(last) + 1 if last else size, size)
    else:
        offset, end = max(0, size - int(last)), size
    if offset >= end:
        raise errors.PartInvalid(size)
    return offset, end - offset, 206


def _nothing() -> BinaryIO:
    """A file for an answer that is sent without its body."""
    return open(os.devnull, "rb", buffering=0)


def _of_blob(digest: Digest) -> dict[str, str]:
    return {
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Cache-Control": "max-age=31536000",
    }


def _under_way(status: int, repository: str, upload_id: str, size: int) -> Response:
    headers = {
        "Location": f"/v2/{repository}/blobs/uploads/{upload_id}",
        "Range": f"0-{max(0, size - 1)}",
        "Docker-Upload-UUID": upload_id,
    }
    return Response(status, headers=headers)


def _stored(repository: str, digest: Digest) -> Response:
    headers = {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
    return Response(201, headers=headers)
