"""``lamina registry serve``: the process, and those that it starts beside it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lamina.client.credentials import as_credentials, auths
from lamina.errors import LaminaError
from lamina.http import Server
from lamina.http.tls import TlsFiles
from lamina.registry import hosts as registry_hosts
from lamina.registry_server import catalog as catalog_module
from lamina.registry_server.access import Access
from lamina.registry_server.application import Application
from lamina.registry_server.catalog import Catalog
from lamina.registry_server.maintenance import apply_policies, collect, maintain, remove_strays
from lamina.registry_server.metrics import Metrics
from lamina.registry_server.mirror import Mirror, Upstream
from lamina.registry_server.passwords import Passwords
from lamina.registry_server.retention import Policies
from lamina.registry_server.rules import Anonymous, Rules
from lamina.registry_server.scrub import scrub
from lamina.registry_server.settings import Settings
from lamina.registry_server.storage import Storage
from lamina.registry_server.tokens import Tokens
from lamina.registry_server.webhooks import Webhooks
from lamina.state import Database

_log = logging.getLogger("lamina.registry")
_SHUTDOWN_S = 10.0
_TOUCHED_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve in the foreground until SIGTERM or SIGINT, or do one collection; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if arguments.garbage_collect:
            return asyncio.run(_collect_once(arguments))
        return _serve_all(arguments)
    except LaminaError as error:
        print(f"lamina registry serve: {error}", file=sys.stderr)
        return 1


def _serve_all(arguments: argparse.Namespace) -> int:
    """This process and further ones that listen on the same port; they end with it."""
    with tempfile.TemporaryDirectory(prefix="lamina-registry-") as counts:
        return _serve_in(arguments, Path(counts))


def _serve_in(arguments: argparse.Namespace, counts: Path) -> int:
    """The same, with a directory where the processes count."""
    asyncio.run(_prepare(_settings(arguments)))
    if arguments.processes > 1 and arguments.listen.rpartition(":")[2] == "0":
        print("lamina registry serve: several processes need a port of their own: --listen HOST:PORT", file=sys.stderr)
        return 1
    children = []
    ours, theirs = os.pipe()
    for _ in range(arguments.processes - 1):
        pid = os.fork()
        if pid == 0:
            os.close(theirs)
            os._exit(asyncio.run(_serve(arguments, counts, first=ours)))
        children.append(pid)
    try:
        return asyncio.run(_serve(arguments, counts))
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


async def _prepare(settings: Settings) -> None:
    """Make what is missing, and settle what was killed, before anybody serves."""
    _, catalog, database = await _open(settings)
    try:
        await catalog.recover()
    finally:
        await database.close()


async def _serve(arguments: argparse.Namespace, counts: Path, *, first: int | None = None) -> int:
    """One process; *first* is a pipe that ends with the first one, None in that itself."""
    settings = _settings(arguments)
    storage, catalog, database = await _open(settings)
    access = Access(
        Rules.read(settings.rules) if settings.rules else Rules.simple(settings.anonymous),
        Passwords(settings.passwords) if settings.passwords else None,
        Tokens(settings.root) if settings.tokens else None,
    )
    metrics = Metrics(counts)
    webhooks = Webhooks(arguments.webhook)
    mirror = _mirror(settings, catalog, storage, arguments.insecure_upstream)
    scheme = "https" if arguments.tls_cert else "http"
    application = Application(settings, storage, catalog, access, metrics, mirror, webhooks, scheme)
    tls = TlsFiles(arguments.tls_cert, arguments.tls_key).context() if arguments.tls_cert else None
    server = Server(application.handle, {"Docker-Distribution-API-Version": "registry/2.0"}, tls=tls)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    maintaining = None
    try:
        host = await server.listen(f"tcp://{arguments.listen}", shared=arguments.processes > 1)
        if first is None:
            _log.info("listening on %s, storage %s", host, settings.root)
            maintaining = asyncio.create_task(maintain(database, storage, catalog, settings))
        for pipe in (first, arguments.end_with):
            if pipe is not None:
                loop.add_reader(pipe, stop.set)
        await stop.wait()
    finally:
        if maintaining is not None:
            maintaining.cancel()
            await asyncio.wait((maintaining,))
        await server.close(_SHUTDOWN_S)
        await mirror.close()
        await webhooks.close(_SHUTDOWN_S)
        await database.close()
    return 0


def _mirror(settings: Settings, catalog: Catalog, storage: Storage, insecure: Sequence[str]) -> Mirror:
    """The registries behind this one, asked by what docker's configuration knows of them."""
    registries = [upstream.registry for upstream in settings.upstreams]
    known = {name: as_credentials(entry) for name, entry in auths(registries).items()} if registries else {}
    hosts = registry_hosts.Settings(insecure=insecure)
    return Mirror(settings.upstreams, catalog, storage, hosts, known, settings.fresh_s)


async def _open(settings: Settings) -> tuple[Storage, Catalog, Database]:
    settings.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage = Storage(settings.root)
    storage.open()
    policies = Policies.read(settings.policies) if settings.policies else Policies()

    def quota_of(repository: str) -> int | None:
        policy = policies.of(repository)
        return policy.quota if policy is not None else None

    database = await Database.open(settings.root / "registry.db", (catalog_module.SCHEMA,))
    return storage, Catalog(database, storage, min(_TOUCHED_S, settings.unused_s / 10), quota_of), database


async def _collect_once(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    storage, catalog, database = await _open(settings)
    try:
        gone = await apply_policies(database, settings, dry_run=arguments.dry_run)
        blobs, freed = await collect(catalog, settings, dry_run=arguments.dry_run)
        if not arguments.dry_run:
            await remove_strays(catalog)
        scrubbed = await scrub(database, storage, 0) if arguments.scrub else None
    finally:
        await database.close()
    for name in gone:
        print(f"{'would remove' if arguments.dry_run else 'removed'} {name}")
    if scrubbed is not None:
        for digest in scrubbed.damaged:
            print(f"damaged: {digest}")
        print(f"hashed {scrubbed.blobs} blobs, {len(scrubbed.damaged)} damaged")
    print(f"{'would remove' if arguments.dry_run else 'removed'} {blobs} blobs, {freed} bytes")
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    anonymous: Anonymous = arguments.anonymous or ("none" if arguments.htpasswd else "push")
    return Settings(
        root=arguments.root,
        passwords=arguments.htpasswd,
        anonymous=anonymous,
        rules=arguments.rules,
        # docker's clients find out by /v2/ alone how to say who they are: where some may do without, only tokens serve both
        tokens=arguments.tokens or (arguments.htpasswd is not None and (anonymous != "none" or bool(arguments.rules))),
        public_url=arguments.public_url.rstrip("/"),
        audit=arguments.audit,
        requests_per_minute=arguments.rate_limit,
        policies=arguments.policies,
        upstreams=[Upstream.parse(text) for text in arguments.upstream],
        fresh_s=arguments.fresh,
        scrub_every_s=arguments.scrub_every,
        scrub_bytes_per_s=arguments.scrub_speed,
        deletes=not arguments.no_deletes,
        blob_limit=arguments.max_blob_size,
        manifest_limit=arguments.max_manifest_size,
        unused_s=arguments.keep_unused,
        stale_upload_s=arguments.keep_uploads,
        collect_every_s=arguments.collect_every,
    )


def _parser() -> argparse.ArgumentParser:
    defaults = Settings(Path("/var/lib/lamina-registry"))
    parser = argparse.ArgumentParser(prog="lamina registry serve", description="Serve a registry in the foreground.")
    parser.add_argument(
        "--root", type=Path, default=defaults.root, help="where everything is kept (default %(default)s)"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:5000", metavar="HOST:PORT", help="where to listen (default %(default)s)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="how many processes serve, which share the storage (default 1)"
    )
    parser.add_argument("--tls-cert", type=Path, help="the server's certificate; without one it speaks HTTP")
    parser.add_argument("--tls-key", type=Path, help="its key")
    parser.add_argument("--htpasswd", type=Path, help="names and bcrypt hashes of who may do everything")
    parser.add_argument(
        "--anonymous",
        choices=("none", "pull", "push"),
        help="what may be done without a name (default: everything, with --htpasswd nothing)",
    )
    parser.add_argument("--rules", type=Path, help="a TOML file that says what who may do with which repositories")
    parser.add_argument(
        "--tokens", action="store_true", help="send clients for a token, which this server issues itself"
    )
    parser.add_argument(
        "--public-url", default="", metavar="URL", help="what clients know this server as, behind a proxy"
    )
    parser.add_argument("--audit", type=Path, metavar="FILE", help="append a line for every change and every refusal")
    parser.add_argument(
        "--rate-limit",
        type=int,
        default=0,
        metavar="N",
        help="requests a minute for each client and process (default: any)",
    )
    parser.add_argument(
        "--policies", type=Path, help="a TOML file that says which tags are kept, and what repositories may hold"
    )
    parser.add_argument(
        "--scrub-every",
        type=float,
        default=defaults.scrub_every_s,
        metavar="SECONDS",
        help="how often all blobs are hashed again, 0 for never (default %(default).0f)",
    )
    parser.add_argument(
        "--scrub-speed",
        type=float,
        default=defaults.scrub_bytes_per_s,
        metavar="BYTES",
        help="how many bytes a second of that at most (default %(default).0f)",
    )
    parser.add_argument(
        "--upstream",
        action="append",
        default=[],
        metavar="[PREFIX=]REGISTRY",
        help="serve a registry's repositories below a prefix (default: its name; =REGISTRY: all names), repeatable",
    )
    parser.add_argument(
        "--fresh",
        type=float,
        default=defaults.fresh_s,
        metavar="SECONDS",
        help="how long an upstream's tag is believed to be what it was (default %(default).0f)",
    )
    parser.add_argument(
        "--insecure-upstream", action="append", default=[], metavar="HOST[:PORT]", help="may speak HTTP, repeatable"
    )
    parser.add_argument(
        "--webhook", action="append", default=[], metavar="URL", help="tell of pushes and removals, repeatable"
    )
    parser.add_argument("--end-with", type=int, metavar="FD", help="end when the other side of this pipe is closed")
    parser.add_argument("--scrub", action="store_true", help="with --garbage-collect: hash all blobs again, too")
    parser.add_argument("--no-deletes", action="store_true", help="let nothing be removed by clients")
    parser.add_argument("--max-blob-size", type=int, default=defaults.blob_limit, metavar="BYTES")
    parser.add_argument("--max-manifest-size", type=int, default=defaults.manifest_limit, metavar="BYTES")
    parser.add_argument(
        "--keep-unused",
        type=float,
        default=defaults.unused_s,
        metavar="SECONDS",
        help="how long a blob is kept that no manifest needs (default %(default).0f)",
    )
    parser.add_argument(
        "--keep-uploads",
        type=float,
        default=defaults.stale_upload_s,
        metavar="SECONDS",
        help="how long an upload is kept that does not grow (default %(default).0f)",
    )
    parser.add_argument(
        "--collect-every",
        type=float,
        default=defaults.collect_every_s,
        metavar="SECONDS",
        help="how often garbage is collected while serving, 0 for never (default %(default).0f)",
    )
    parser.add_argument(
        "--garbage-collect", action="store_true", help="collect garbage once, also beside a server, and exit"
    )
    parser.add_argument("--dry-run", action="store_true", help="with --garbage-collect: only tell what would go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
