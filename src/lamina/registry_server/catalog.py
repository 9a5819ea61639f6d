"""What a registry has: repositories with their blobs, manifests and tags, and the uploads on their way; rows in SQLite.

A blob is stored once, whatever repositories have it: a *link* says that one has. A manifest's *needs* are the blobs and manifests that it
names; a link that no manifest needs is garbage once it has not been touched for a while.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from lamina.oci.digest import Digest
from lamina.registry_server.documents import Document
from lamina.registry_server.errors import (
    blob_unknown,
    denied,
    manifest_blob_unknown,
    manifest_unknown,
    name_unknown,
    upload_unknown,
)
from lamina.registry_server.storage import Storage
from lamina.state import Database, Schema
from lamina.state.database import WriteFailed

SCHEMA = Schema(
    "registry",
    (
        "CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
        "CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT",
        """CREATE TABLE link (
            repository INTEGER NOT NULL REFERENCES repository (id),
            digest TEXT NOT NULL REFERENCES blob (digest),
            touched_s INTEGER NOT NULL,
            PRIMARY KEY (repository, digest)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX link_by_digest ON link (digest)",
        """CREATE TABLE manifest (
            repository INTEGER NOT NULL REFERENCES repository (id),
            digest TEXT NOT NULL,
            media_type TEXT NOT NULL,
            data BLOB NOT NULL,
            subject TEXT,
            artifact_type TEXT NOT NULL,
            annotations TEXT NOT NULL,
            pushed_s INTEGER NOT NULL,
            PRIMARY KEY (repository, digest)
        ) STRICT""",
        "CREATE INDEX manifest_by_subject ON manifest (repository, subject)",
        """CREATE TABLE need (
            repository INTEGER NOT NULL,
            manifest TEXT NOT NULL,
            digest TEXT NOT NULL,
            PRIMARY KEY (repository, manifest, digest),
            FOREIGN KEY (repository, manifest) REFERENCES manifest (repository, digest) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX need_by_digest ON need (repository, digest)",
        """CREATE TABLE tag (
            repository INTEGER NOT NULL,
            name TEXT NOT NULL,
            digest TEXT NOT NULL,
            updated_ns INTEGER NOT NULL,
            PRIMARY KEY (repository, name),
            FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX tag_by_digest ON tag (repository, digest)",
        """CREATE TABLE upload (
            id TEXT PRIMARY KEY,
            repository INTEGER NOT NULL REFERENCES repository (id)
        ) STRICT""",
        """CREATE TABLE mirrored (
            repository INTEGER NOT NULL,
            name TEXT NOT NULL,
            checked_s INTEGER NOT NULL,
            PRIMARY KEY (repository, name),
            FOREIGN KEY (repository, name) REFERENCES tag (repository, name) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID""",
    ),
)


_ANYTHING = object()
"""As what a tag replaces: whatever it was."""


@dataclass(frozen=True)
class StoredManifest:
    """A manifest as it was pushed."""

    digest: Digest
    media_type: str
    data: bytes


@dataclass(frozen=True)
class Referrer:
    """What refers to a manifest."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str
    annotations: dict[str, str]


@dataclass(frozen=True)
class Collected:
    """What a collection took away, or would: links of repositories to blobs, blobs, and their bytes."""

    links: int
    blobs: tuple[Digest, ...]
    freed_bytes: int


def _no_quota(repository: str) -> int | None:
    return None


class Catalog:
    """The rows. Methods raise RegistryError for what is not there."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        touch_s: float = 60.0,
        quota_of: Callable[[str], int | None] = _no_quota,
    ) -> None:
        """A link that was touched less than *touch_s* ago is not touched again; *quota_of* is what a repository may hold, in bytes."""
        self._quota_of = quota_of
        self._touch_s = touch_s
        self._database = database
        self._storage = storage

    # ---- blobs

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """How long a blob of a repository is. That somebody asked keeps it from being collected for a while."""

        def read(connection: sqlite3.Connection) -> tuple[int, int, int] | None:
            row = connection.execute(
                "SELECT repository, size, touched_s FROM link JOIN blob USING (digest) JOIN repository "
                "ON repository.id = link.repository WHERE name = ? AND digest = ?",
                (repository, str(digest)),
            ).fetchone()
            return (row["repository"], row["size"], row["touched_s"]) if row else None

        found = await self._database.read(read)
        if found is None:
            raise blob_unknown(digest)
        number, size, touched_s = found
        if touched_s < time.time() - self._touch_s:
            await self._touch(number, digest)
        return size

    async def _touch(self, repository: int, digest: Digest) -> None:
        """Keep a link from being collected for a while. A full or busy disk is no reason not to serve what is here."""
        query = "UPDATE link SET touched_s = ? WHERE repository = ? AND digest = ?"
        values = (int(time.time()), repository, str(digest))
        with suppress(WriteFailed):
            if not await self._database.write(lambda c: c.execute(query, values).rowcount, lasting=False):
                raise blob_unknown(digest)

    async def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Let a repository have a blob that another has; whether that has it."""

        def write(connection: sqlite3.Connection) -> bool:
            row = connection.execute(
                "SELECT 1 FROM link JOIN repository ON repository.id = link.repository WHERE name = ? AND digest = ?",
                (source, str(digest)),
            ).fetchone()
            if row is None or not self._storage.blob_path(digest).exists():
                return False
            self._link(connection, repository, digest)
            return True

        return await self._database.write(write)

    async def delete_blob(self, repository: str, digest: Digest) -> None:
        """Take a blob from a repository; its bytes go with the next collection, unless another has it, too."""

        def write(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM link WHERE digest = ? AND repository = (SELECT id FROM repository WHERE name = ?)",
                (str(digest), repository),
            ).rowcount

        if not await self._database.write(write, frees=True):
            raise blob_unknown(digest)

    # ---- uploads

    async def begin_upload(self, repository: str, upload_id: str) -> None:
        """An upload begins; its file is there already."""
        await self._database.write(
            lambda c: c.execute("INSERT INTO upload VALUES (?, ?)", (upload_id, _repository_id(c, repository))),
            lasting=False,
        )

    async def check_upload(self, repository: str, upload_id: str) -> None:
        """Raises RegistryError unless the upload is a repository's."""
        query = (
            "SELECT 1 FROM upload JOIN repository ON repository.id = upload.repository WHERE upload.id = ? AND name = ?"
        )
        if await self._database.read(lambda c: c.execute(query, (upload_id, repository)).fetchone()) is None:
            raise upload_unknown(upload_id)

    async def end_upload(self, upload_id: str) -> None:
        """An upload is given up."""
        await self._database.write(lambda c: c.execute("DELETE FROM upload WHERE id = ?", (upload_id,)), lasting=False)
        self._storage.upload_path(upload_id).unlink(missing_ok=True)

    async def adopt(self, repository: str, upload_id: str, digest: Digest, size: int) -> None:
        """An upload, whose file is synced and has this digest, becomes a blob of a repository; its file changes its name here."""

        def write(connection: sqlite3.Connection) -> None:
            if not connection.execute("DELETE FROM upload WHERE id = ?", (upload_id,)).rowcount:
                raise upload_unknown(upload_id)
            if self._storage.upload_path(upload_id).stat().st_size != size:
                raise upload_unknown(upload_id)
            is_new = not self._storage.blob_path(digest).exists()
            known = "DO UPDATE SET size = excluded.size" if is_new else "DO NOTHING"
            connection.execute(f"INSERT INTO blob VALUES (?, ?) ON CONFLICT {known}", (str(digest), size))  # noqa: S608
            self._link(connection, repository, digest)
            if is_new:  # last of all, as no rollback undoes it
                self._storage.adopt(upload_id, digest)

        try:
            await self._database.write(write)
        except BaseException:
            await self.end_upload(upload_id)
            raise
        self._storage.upload_path(upload_id).unlink(missing_ok=True)

    def _link(self, connection: sqlite3.Connection, repository: str, digest: Digest) -> None:
        """A repository has a blob. Raises RegistryError if it may not hold so much."""
        number = _repository_id(connection, repository)
        connection.execute("INSERT OR REPLACE INTO link VALUES (?, ?, ?)", (number, str(digest), int(time.time())))
        quota = self._quota_of(repository)
        if quota is not None:
            query = "SELECT sum(size) AS size FROM link JOIN blob USING (digest) WHERE repository = ?"
            if connection.execute(query, (number,)).fetchone()["size"] > quota:
                raise denied(f"{repository} may hold {quota} bytes, and this would be more")

    # ---- manifests

    async def manifest(self, repository: str, reference: str) -> StoredManifest:
        """What a repository has under a tag or digest."""
        by_digest = "SELECT digest, media_type, data FROM manifest WHERE repository = ? AND digest = ?"
        by_tag = (
            "SELECT digest, media_type, data FROM tag JOIN manifest USING (repository, digest) WHERE repository = ? "
            "AND tag.name = ?"
        )

        def read(connection: sqlite3.Connection) -> sqlite3.Row | None:
            number = _known_id(connection, repository)
            query = by_digest if ":" in reference else by_tag
            row: sqlite3.Row | None = connection.execute(query, (number, reference)).fetchone()
            return row

        row = await self._database.read(read)
        if row is None:
            raise manifest_unknown(reference)
        return StoredManifest(Digest(row["digest"]), row["media_type"], row["data"])

    async def put_manifest(
        self,
        repository: str,
        tag: str | None,
        digest: Digest,
        media_type: str,
        data: bytes,
        document: Document,
        *,
        is_complete: bool = True,
        replaces: object = _ANYTHING,
    ) -> bool:
        """Store a manifest, and let a *tag* mean it. All that it needs must be there, but for one that *is* not *complete* yet.

        What came from another registry *replaces* what was found before (a digest, or None for nothing) and is noted as mirrored;
        if the tag is something else by now nothing is done, and False returned.
        """

        def write(connection: sqlite3.Connection) -> bool:
            number = _repository_id(connection, repository)
            if is_complete:
                self._check_needs(connection, number, document)
            if tag is not None and not _may_tag(connection, number, tag, replaces):
                return False
            now = int(time.time())
            connection.execute(
                "INSERT INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "media_type = excluded.media_type, pushed_s = excluded.pushed_s",
                (
                    number,
                    str(digest),
                    media_type,
                    data,
                    document.subject and str(document.subject),
                    document.artifact_type,
                    msgspec.json.encode(document.annotations).decode(),
                    now,
                ),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO need VALUES (?, ?, ?)",
                [(number, str(digest), str(needed)) for needed in (*document.blobs, *document.manifests)],
            )
            if tag is not None:
                connection.execute(
                    "INSERT INTO tag VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest, "
                    "updated_ns = excluded.updated_ns",
                    (number, tag, str(digest), time.time_ns()),
                )
                connection.execute("DELETE FROM mirrored WHERE repository = ? AND name = ?", (number, tag))
                if replaces is not _ANYTHING:
                    connection.execute("INSERT INTO mirrored VALUES (?, ?, ?)", (number, tag, now))
            return True

        return await self._database.write(write)

    def _check_needs(self, connection: sqlite3.Connection, repository: int, document: Document) -> None:
        """Raises RegistryError for what a manifest needs and a repository has not got, or not any more."""
        for table, needed in (("link", document.blobs), ("manifest", document.manifests)):
            missing = _missing(connection, table, repository, needed)
            if missing is not None:
                raise manifest_blob_unknown(missing)
        for digest in document.blobs:
            if not self._storage.blob_path(digest).exists():
                raise manifest_blob_unknown(digest)

    async def mirrored(self, repository: str, tag: str) -> int | None:
        """When a tag that came from another registry was last looked up there; None for one that did not."""
        query = (
            "SELECT checked_s FROM mirrored JOIN repository ON repository.id = mirrored.repository "
            "WHERE repository.name = ? AND mirrored.name = ?"
        )
        row = await self._database.read(lambda c: c.execute(query, (repository, tag)).fetchone())
        return int(row["checked_s"]) if row is not None else None

    async def note_mirrored(self, repository: str, tag: str, digest: Digest) -> None:
        """A mirrored tag is at this moment still what it was at the other registry."""
        query = (
            "UPDATE mirrored SET checked_s = ? WHERE name = ? AND repository = (SELECT id FROM repository WHERE name = ?) "
            "AND EXISTS (SELECT 1 FROM tag WHERE tag.repository = mirrored.repository AND tag.name = mirrored.name "
            "AND digest = ?)"
        )
        values = (int(time.time()), tag, repository, str(digest))
        with suppress(WriteFailed):
            await self._database.write(lambda c: c.execute(query, values), lasting=False)

    async def delete_manifest(self, repository: str, reference: str) -> None:
        """Remove a manifest with its tags, or one tag alone."""

        def write(connection: sqlite3.Connection) -> int:
            number = _known_id(connection, repository)
            if ":" not in reference:
                query = "DELETE FROM tag WHERE repository = ? AND name = ?"
            else:
                query = "DELETE FROM manifest WHERE repository = ? AND digest = ?"
            _touch_needs(connection, number, reference)
            return connection.execute(query, (number, reference)).rowcount

        if not await self._database.write(write, frees=True):
            raise manifest_unknown(reference)

    # ---- listings

    async def tags(self, repository: str, last: str, limit: int | None) -> list[str]:
        """A repository's tags in order, those behind *last*."""

        def read(connection: sqlite3.Connection) -> list[str]:
            number = _known_id(connection, repository)
            query = "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?"
            limited = -1 if limit is None else limit
            return [row["name"] for row in connection.execute(query, (number, last, limited))]

        return await self._database.read(read)

    async def repositories(self, last: str, limit: int | None) -> list[str]:
        """The repositories that have something, in order, those behind *last*."""
        query = (
            "SELECT name FROM repository WHERE name > ? AND EXISTS (SELECT 1 FROM manifest WHERE repository = id) "
            "ORDER BY name LIMIT ?"
        )
        limited = -1 if limit is None else limit
        return await self._database.read(lambda c: [row["name"] for row in c.execute(query, (last, limited))])

    async def referrers(self, repository: str, subject: Digest, artifact_type: str) -> list[Referrer]:
        """What refers to a manifest, of one type if one is given."""
        query = (
            "SELECT media_type, digest, length(data) AS size, artifact_type, annotations FROM manifest JOIN repository "
            "ON repository.id = manifest.repository WHERE name = ? AND subject = ? AND (? = '' OR artifact_type = ?) "
            "ORDER BY pushed_s, digest"
        )
        values = (repository, str(subject), artifact_type, artifact_type)
        rows = await self._database.read(lambda c: c.execute(query, values).fetchall())
        return [
            Referrer(
                row["media_type"],
                Digest(row["digest"]),
                row["size"],
                row["artifact_type"],
                msgspec.json.decode(row["annotations"], type=dict[str, str]),
            )
            for row in rows
        ]

    # ---- garbage

    async def collect(self, unused_since_s: float, most: int, *, dry_run: bool = False) -> Collected:
        """Take away links that no manifest needs and nobody has touched since, and blobs without a link, up to so *many*.

        Blobs' files go to the trash within the transaction, and are gone behind it: whoever brings the same bytes meanwhile waits for
        it. ``recover`` undoes what was killed halfway.
        """

        def write(connection: sqlite3.Connection) -> Collected:
            links = connection.execute(
                "SELECT repository, digest FROM link WHERE touched_s < ? AND NOT EXISTS (SELECT 1 FROM need WHERE "
                "need.repository = link.repository AND need.digest = link.digest) LIMIT ?",
                (int(unused_since_s), most),
            ).fetchall()
            connection.executemany(
                "DELETE FROM link WHERE repository = ? AND digest = ?", [(r["repository"], r["digest"]) for r in links]
            )
            blobs = connection.execute(
                "SELECT digest, size FROM blob WHERE NOT EXISTS (SELECT 1 FROM link WHERE link.digest = blob.digest) LIMIT ?",
                (most,),
            ).fetchall()
            connection.executemany("DELETE FROM blob WHERE digest = ?", [(row["digest"],) for row in blobs])
            digests = tuple(Digest(row["digest"]) for row in blobs)
            found = Collected(len(links), digests, sum(row["size"] for row in blobs))
            if dry_run:
                raise _Undone(found)
            for digest in digests:
                self._storage.throw_away(digest)
            return found

        try:
            collected = await self._database.write(write, frees=True)
        except _Undone as undone:
            return undone.found
        for digest in collected.blobs:
            self._storage.empty_trash(digest)
        return collected

    async def recover(self) -> None:
        """Settle what a collection that was killed left in the trash."""

        def write(connection: sqlite3.Connection) -> list[Digest]:
            gone = []
            for digest in list(self._storage.trash()):
                query = "SELECT 1 FROM blob WHERE digest = ?"
                if connection.execute(query, (str(digest),)).fetchone() is None:
                    gone.append(digest)
                else:
                    self._storage.take_back(digest)
            return gone

        for digest in await self._database.write(write):
            self._storage.empty_trash(digest)

    async def forget_uploads(self, before_s: float) -> int:
        """Give up uploads that have not grown since; how many there were."""
        old = [upload_id for upload_id, grown_s in self._storage.upload_ids() if grown_s < before_s]
        for upload_id in old:
            await self.end_upload(upload_id)
        return len(old)

    async def remove_strays(self, before_s: float) -> None:
        """Remove what a kill left between a file and its row: blobs' files without a row, older than that, and uploads without a file."""
        uploads = await self._database.read(lambda c: [row["id"] for row in c.execute("SELECT id FROM upload")])
        for upload_id in uploads:
            if not self._storage.upload_path(upload_id).exists():
                await self.end_upload(upload_id)
        query = "SELECT 1 FROM blob WHERE digest = ?"

        def remove(connection: sqlite3.Connection, digest: Digest, path: Path) -> None:
            is_old = path.exists() and path.stat().st_ctime < before_s
            if is_old and connection.execute(query, (str(digest),)).fetchone() is None:
                path.unlink()

        known = await self._database.read(lambda c: {row["digest"] for row in c.execute("SELECT digest FROM blob")})
        strays = await asyncio.to_thread(lambda: [item for item in self._storage.blobs() if item[0] not in known])
        for digest, path in strays:
            await self._database.write(partial(remove, digest=digest, path=path), frees=True)

    async def answers(self) -> None:
        """Raises what befalls a query."""
        await self._database.read(lambda c: c.execute("SELECT 1").fetchone())

    async def counts(self) -> dict[str, int]:
        """How many repositories, manifests, tags and blobs there are, and the bytes of the blobs."""

        def read(connection: sqlite3.Connection) -> dict[str, int]:
            tables = ("repository", "manifest", "tag", "blob", "upload")
            counted = {t: connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}  # noqa: S608
            return counted | {"bytes": connection.execute("SELECT coalesce(sum(size), 0) FROM blob").fetchone()[0]}

        return await self._database.read(read)


class _Undone(Exception):
    """A collection that was to be a try: the transaction is undone, and this is what it found."""

    def __init__(self, found: Collected) -> None:
        super().__init__()
        self.found = found


def _repository_id(connection: sqlite3.Connection, name: str) -> int:
    """A repository's number, which it gets now if it is new."""
    row = connection.execute("SELECT id FROM repository WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row["id"])
    return int(connection.execute("INSERT INTO repository (name) VALUES (?)", (name,)).lastrowid or 0)


def _known_id(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT id FROM repository WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise name_unknown(name)
    return int(row["id"])


def _may_tag(connection: sqlite3.Connection, repository: int, tag: str, replaces: object) -> bool:
    """Whether a tag is still what it was when another registry was asked for it."""
    if replaces is _ANYTHING:
        return True
    query = (
        "SELECT tag.digest, mirrored.checked_s FROM tag LEFT JOIN mirrored USING (repository, name) "
        "WHERE tag.repository = ? AND tag.name = ?"
    )
    row = connection.execute(query, (repository, tag)).fetchone()
    return replaces is None if row is None else row["digest"] == replaces and row["checked_s"] is not None


def _missing(connection: sqlite3.Connection, table: str, repository: int, digests: Sequence[Digest]) -> Digest | None:
    query = f"SELECT 1 FROM {table} WHERE repository = ? AND digest = ?"  # noqa: S608 - one of two words
    return next((d for d in digests if connection.execute(query, (repository, str(d))).fetchone() is None), None)


def _touch_needs(connection: sqlite3.Connection, repository: int, manifest: str) -> None:
    """What a manifest needed is not garbage at once when it goes: somebody may be pushing it again."""
    connection.execute(
        "UPDATE link SET touched_s = ? WHERE repository = ? AND digest IN (SELECT digest FROM need WHERE repository = ? "
        "AND manifest = ?)",
        (int(time.time()), repository, repository, manifest),
    )
