"""``lamina daemon``: the process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import shlex
import signal
import ssl
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from lamina.api import versions
from lamina.daemon.application import Application
from lamina.daemon.embedded_registry import EmbeddedRegistry
from lamina.engine import EngineOptions, open_engine
from lamina.engine.info import lamina_version
from lamina.errors import InvalidArgument, LaminaError
from lamina.http import Server
from lamina.http.tls import TlsFiles
from lamina.layer.ingest import Limits
from lamina.network.model import plain_address
from lamina.network.subnets import SubnetPool
from lamina.registry.hosts import Settings, check_settings, is_own

_log = logging.getLogger(__name__)
_SHUTDOWN_TIMEOUT_S = 5.0
_THREADS = 64
_DEFAULT_HOST = "unix:///run/lamina/lamina.sock"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a daemon in the foreground until SIGTERM or SIGINT; returns the exit code."""
    arguments = _parser().parse_args(argv)
    level = logging.DEBUG if arguments.debug else logging.INFO
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("asyncio", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if os.geteuid() != 0:
        print("lamina daemon: it needs root; try: sudo lamina daemon", file=sys.stderr)
        return 1
    try:
        return asyncio.run(_clean_up(arguments) if arguments.clean_up else _serve(arguments))
    except LaminaError as error:
        print(f"lamina daemon: {error}", file=sys.stderr)
        return 1


async def _clean_up(arguments: argparse.Namespace) -> int:
    """End what runs without its daemon, and take away what it had on the host: interfaces, rules, mounts, helpers."""
    engine = await open_engine(_options(arguments), carry_on=False)
    try:
        await engine.lifecycle.end_all()
    finally:
        await engine.close()
    return 0


async def _serve(arguments: argparse.Namespace) -> int:
    _raise_open_files()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="blocking"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tls = _tls(arguments)
    engine = await open_engine(_options(arguments))
    application = Application(engine)
    headers = {
        "Api-Version": versions.CURRENT,
        "Docker-Experimental": "false",
        "Ostype": "linux",
        "Server": f"Lamina/{lamina_version()} (linux)",
    }
    server = Server(application.handle, headers, tls=tls, group=arguments.group)
    registry = None
    if arguments.serve_registry:
        options = [word for text in arguments.registry_option for word in shlex.split(text)]
        registry = EmbeddedRegistry(arguments.root.absolute() / "registry", arguments.serve_registry, options)
    try:
        for host in arguments.host or [_DEFAULT_HOST]:
            _log.info("listening on %s", await server.listen(host))
            if tls is None and host.startswith("tcp:") and not is_own(urlsplit(host).netloc):
                _log.warning("listening on %s without TLS: whoever reaches it is root here", host)
        _log.info("ready: storage %s, runtime %s", engine.lowers.name, engine.tools.runtime.name)
        await stop.wait()
        _log.info("shutting down")
    finally:
        # builds are cut short, and their clients told so; other requests under way have a moment
        await asyncio.gather(engine.builder.close(), server.close(_SHUTDOWN_TIMEOUT_S))
        if registry is not None:
            await registry.close()
        await engine.close()
    return 0


def _raise_open_files() -> None:
    """Every stack of layers in use is an open mount: as many files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """How connections by TCP are encrypted, None for not at all. Raises InvalidCertificate."""
    if not (arguments.tls or arguments.tlsverify):
        return None
    return TlsFiles(arguments.tlscert, arguments.tlskey, arguments.tlscacert if arguments.tlsverify else None).context()


def _named(text: str) -> tuple[str, str]:
    """``name=path``. Raises InvalidArgument."""
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise InvalidArgument(f"invalid runtime {text!r}: expected NAME=PATH")
    return name, path


def _options(arguments: argparse.Namespace) -> EngineOptions:
    defaults = EngineOptions()
    return EngineOptions(
        root=arguments.root,
        run_root=arguments.run_root,
        bridge=arguments.bridge,
        bip=arguments.bip,
        nft_table=arguments.nft_table,
        address_pools=[SubnetPool.parse(text) for text in arguments.default_address_pool] or defaults.address_pools,
        publish_default=_checked_address(arguments.publish_default),
        cgroup_parent=arguments.cgroup_parent,
        runtime=arguments.runtime,
        runtimes=dict(_named(text) for text in arguments.add_runtime),
        storage_driver=arguments.storage_driver,
        userns_remap=arguments.userns_remap,
        layer_limits=Limits(tar_bytes=arguments.max_layer_size),
        registries=_registries(arguments),
    )


def _registries(arguments: argparse.Namespace) -> Settings:
    """Raises InvalidHosts."""
    settings = Settings(
        arguments.registry_hosts,
        [*arguments.registry_certs, *Settings().certs],
        arguments.insecure_registry,
        arguments.registry_mirror,
    )
    check_settings(settings)
    return settings


def _checked_address(text: str) -> str:
    """Raises InvalidArgument."""
    try:
        return str(plain_address(text)) if text else ""
    except ValueError:
        raise InvalidArgument(f"invalid address for published ports: {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    defaults = EngineOptions()
    parser = argparse.ArgumentParser(prog="lamina daemon", description="Run the lamina daemon in the foreground.")
    parser.add_argument("--root", type=Path, default=defaults.root, help="state that lasts (default %(default)s)")
    parser.add_argument(
        "--run-root", type=Path, default=defaults.run_root, help="state until a reboot (default %(default)s)"
    )
    parser.add_argument(
        "-H", "--host", action="append", help=f"address to listen on, repeatable (default {_DEFAULT_HOST})"
    )
    parser.add_argument("-G", "--group", help="who may use the unix socket (default docker, if there is such a group)")
    certificates = Path("~/.docker").expanduser()
    parser.add_argument("--tls", action="store_true", help="encrypt what comes by TCP; clients need no certificate")
    parser.add_argument("--tlsverify", action="store_true", help="encrypt it, and ask clients for a certificate")
    for name, file, what in (
        ("--tlscacert", "ca.pem", "who signs clients' certificates"),
        ("--tlscert", "cert.pem", "the daemon's certificate"),
        ("--tlskey", "key.pem", "the daemon's key"),
    ):
        parser.add_argument(name, type=Path, default=certificates / file, help=f"{what} (default %(default)s)")
    parser.add_argument("--bridge", help="name of the bridge interface (default lamina0, or the next that is free)")
    parser.add_argument("--bip", help="the bridge's address, such as 172.30.0.1/16 (default: a free subnet)")
    parser.add_argument(
        "--default-address-pool",
        action="append",
        default=[],
        metavar="base=CIDR,size=N",
        help="where networks that name no subnet get one, repeatable (default 172.17.0.0/12 as /16, then 192.168.0.0/16 as /20)",
    )
    parser.add_argument(
        "--publish-default",
        "--ip",
        default=defaults.publish_default,
        metavar="ADDRESS",
        help="the host's address for published ports that name none (default: all)",
    )
    parser.add_argument("--nft-table", help="name of the nftables table (default lamina, numbered as the bridge)")
    parser.add_argument(
        "--cgroup-parent", default=defaults.cgroup_parent, help="control group of containers (default %(default)s)"
    )
    parser.add_argument("--runtime", help="OCI runtime, a name or path (default: crun or runc, what works here)")
    parser.add_argument(
        "--add-runtime",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a further OCI runtime that containers may choose, repeatable",
    )
    parser.add_argument(
        "--userns-remap",
        metavar="USER[:GROUP]",
        help="let containers' users be others on the host, of the ranges in /etc/subuid and /etc/subgid; or default",
    )
    parser.add_argument(
        "--serve-registry", metavar="HOST:PORT", help="run a registry beside the daemon, kept below its root"
    )
    parser.add_argument(
        "--registry-option",
        action="append",
        default=[],
        metavar="OPTION",
        help='further options of that registry, such as "--upstream =docker.io"; see lamina registry serve --help; repeatable',
    )
    registries = defaults.registries
    parser.add_argument(
        "--registry-hosts",
        type=Path,
        default=registries.hosts,
        metavar="DIRECTORY",
        help="where REGISTRY/hosts.toml names mirrors, in containerd's form (default %(default)s)",
    )
    parser.add_argument(
        "--registry-certs",
        type=Path,
        action="append",
        default=[],
        metavar="DIRECTORY",
        help=f"where REGISTRY/*.crt, *.cert and *.key lie, before {' and '.join(map(str, registries.certs))}; repeatable",
    )
    parser.add_argument(
        "--registry-mirror", action="append", default=[], metavar="URL", help="a mirror of docker.io, repeatable"
    )
    parser.add_argument(
        "--insecure-registry",
        action="append",
        default=[],
        metavar="HOST[:PORT]|SUBNET",
        help="registries that may speak HTTP, or whose certificates nobody vouches for; repeatable",
    )
    parser.add_argument("--storage-driver", help="erofs or directory (default: what works here)")
    parser.add_argument(
        "--max-layer-size",
        type=int,
        default=defaults.layer_limits.tar_bytes,
        help="largest uncompressed layer that is taken, in bytes (default %(default)s)",
    )
    parser.add_argument(
        "--clean-up",
        action="store_true",
        help="end the containers that run without their daemon, remove what they and it have on the host, and exit",
    )
    parser.add_argument("-D", "--debug", action="store_true", help="log more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
