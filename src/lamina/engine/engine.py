"""Opening an engine: services made in the order in which they stand on each other, and reconciled with what was left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from lamina.build.builder import Builder
from lamina.build.cache import outcomes as build_cache
from lamina.build.cache.outcomes import BuildCache
from lamina.build.run.cache_mounts import CacheMounts
from lamina.build.run.mounting import MountRoom
from lamina.build.run.running import StepRunner
from lamina.container import store as container_store
from lamina.container.announcements import Announcements
from lamina.container.commit import Commits
from lamina.container.connections import Connections
from lamina.container.creation import Creation
from lamina.container.execs import Execs
from lamina.container.file_copies import FileCopies
from lamina.container.freezing import Freezing
from lamina.container.health import HealthChecks
from lamina.container.lifecycle import Lifecycle
from lamina.container.links import LinkedNames
from lamina.container.locks import ContainerLocks
from lamina.container.log_rotation import LogRotation
from lamina.container.networking import Networking, live_endpoints
from lamina.container.processes import ContainerProcesses
from lamina.container.record import Record, volumes_of
from lamina.container.root_views import RootViews
from lamina.container.stats import Stats
from lamina.container.store import ContainerStore
from lamina.container.syslog_forwarding import SyslogForwarding
from lamina.content import ContentStore
from lamina.engine.container_events import container_emitter, of_endpoint
from lamina.engine.event_journal import EventJournal
from lamina.engine.events import Event, EventLog
from lamina.engine.networks import Networks
from lamina.engine.volume_care import VolumeCare
from lamina.errors import Unavailable
from lamina.image import layer_blobs as layer_blobs_store
from lamina.image import store as image_store
from lamina.image.exchange import Exchange
from lamina.image.intake import LayerIntake
from lamina.image.layer_blobs import LayerBlobs
from lamina.image.pull import Pulls
from lamina.image.push import Pushes
from lamina.image.removal import ImageRemoval, ImageUser
from lamina.image.store import ImageStore
from lamina.layer.ingest import Limits
from lamina.linux.cgroups import Hierarchies, is_managed
from lamina.linux.files import lock_exclusively, write_atomically
from lamina.linux.user_namespace import IdMap, UserNamespace, read_mapping
from lamina.network import Network, NetworkService
from lamina.network import store as network_store
from lamina.network.firewall import PublishedPort
from lamina.network.port_proxies import PortProxies
from lamina.network.ports import HostPorts
from lamina.network.store import NetworkStore
from lamina.network.subnets import DEFAULT_POOLS, SubnetPool
from lamina.oci.digest import DiffID, Digest, ImageID
from lamina.registry.hosts import Settings
from lamina.resolver.client import Resolver
from lamina.runtime.monitor import Monitor
from lamina.runtime.oci_runtime import OciRuntime
from lamina.runtime.probe import Tools, find_others, find_tools
from lamina.runtime.runtimes import Runtimes
from lamina.snapshot import LayerTrees, LowerDriver, Snapshots, choose_driver
from lamina.state import Database
from lamina.volume import VolumeMounts, VolumeStore
from lamina.volume import store as volume_store

_MONITORS = "conmon"


class RootUnusable(Unavailable):
    """The state root or the run root cannot be made or written."""

    def __init__(self, kind: str, root: Path, error: OSError) -> None:
        super().__init__(f"{kind} root {root} cannot be used: {error.strerror}")
        self.root = root


class RootLocked(Unavailable):
    """Another process owns the state root or the run root."""

    def __init__(self, kind: str, root: Path) -> None:
        super().__init__(f"{kind} root {root} is in use by another lamina daemon")
        self.root = root


@dataclass(frozen=True)
class EngineOptions:
    """Where an engine keeps its state, and what it may call its own on the host."""

    root: Path = Path("/var/lib/lamina")
    run_root: Path = Path("/run/lamina")
    bridge: str | None = None
    bip: str | None = None
    nft_table: str | None = None
    address_pools: Sequence[SubnetPool] = DEFAULT_POOLS
    publish_default: str = ""
    cgroup_parent: str = "/lamina"
    runtime: str | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)
    userns_remap: str | None = None
    storage_driver: str | None = None
    layer_limits: Limits = Limits()
    registries: Settings = Settings()


@dataclass(frozen=True)
class Engine:
    """The services of one state root. It composes them and has no behaviour of its own."""

    options: EngineOptions
    tools: Tools
    hierarchies: Hierarchies
    database: Database
    content: ContentStore
    trees: LayerTrees
    lowers: LowerDriver
    snapshots: Snapshots
    images: ImageStore
    intake: LayerIntake
    exchange: Exchange
    removal: ImageRemoval
    volumes: VolumeStore
    volume_mounts: VolumeMounts
    network_service: NetworkService
    network_definitions: NetworkStore
    networks: Networks
    connections: Connections
    resolver: Resolver
    runtimes: Runtimes
    containers: ContainerStore
    processes: ContainerProcesses
    creation: Creation
    lifecycle: Lifecycle
    freezing: Freezing
    execs: Execs
    health: HealthChecks
    logs: LogRotation
    forwarding: SyslogForwarding
    stats: Stats
    copies: FileCopies
    commits: Commits
    builder: Builder
    care: VolumeCare
    events: EventLog
    lock_fds: tuple[int, ...]

    async def close(self) -> None:
        """Let go of everything. Running containers go on; without any, what was made on the host goes away."""
        await self.builder.close()
        await self.execs.close()
        await self.health.close()
        await self.lifecycle.close()
        await self.forwarding.close()
        await self.logs.close()
        await self.stats.close()
        running = any(record.state.has_process for record in self.containers)
        await self.resolver.close(remove=not running)
        await self.network_service.close(remove=not running)
        for group in (f"{self.options.cgroup_parent}/{_MONITORS}", self.options.cgroup_parent):
            self.hierarchies.remove_if_empty(group)
        self.lowers.close()
        await self.containers.close()
        await self.events.close()
        await self.database.close()
        for fd in self.lock_fds:
            os.close(fd)


async def open_engine(options: EngineOptions, *, carry_on: bool = True) -> Engine:
    """Open the engine of a state root and find again what runs; to *carry on* is to start what is to run whenever a daemon does.

    Raises RootLocked, ToolMissing, DatabaseDamaged or UnknownDriver.
    """
    root, run_root = options.root.absolute(), options.run_root.absolute()
    lock_fds = _take(root, run_root)
    tools = find_tools(options.runtime)
    hierarchies = Hierarchies.of_host()
    schemas = (
        image_store.SCHEMA,
        container_store.SCHEMA,
        volume_store.SCHEMA,
        network_store.SCHEMA,
        build_cache.SCHEMA,
        layer_blobs_store.SCHEMA,
    )
    database = await Database.open(root / "state.db", schemas)
    content = ContentStore(root / "content")
    content.open()
    trees = LayerTrees(root / "snapshot" / "trees", content)
    trees.open()
    lowers = choose_driver(root / "snapshot", content, trees, options.storage_driver)
    images = ImageStore(database, content)
    await images.open()
    containers = ContainerStore(database)
    await containers.open()
    journal = EventJournal(root / "events")
    events = EventLog(journal.read(), journal.append)
    users = UserNamespace(_mapping_of(root, options.userns_remap)) if options.userns_remap else None
    owner = users.idmap.root if users is not None else (0, 0)
    volumes = VolumeStore(database, root / "volume", partial(_tell_of_volume, events), owner)
    await volumes.open()
    volume_mounts = VolumeMounts(volumes)
    volume_mounts.open(_users_of_volumes(containers))
    ids = [record.id for record in containers]
    snapshots = Snapshots(root / "snapshot" / "rw", run_root / "rootfs", lowers, users)
    snapshots.open(ids)
    definitions = NetworkStore(database)
    await definitions.open()
    network_service = NetworkService(
        root / "network",
        run_root / "netns",
        bridge=options.bridge,
        bip=options.bip,
        table=options.nft_table,
        owner=users.pin_network_namespace if users is not None else None,
        pools=options.address_pools,
    )
    own_group = _own_group(hierarchies, options.cgroup_parent)
    resolver = Resolver(run_root / "resolver.sock", own_group)
    networking = Networking(
        definitions, network_service, HostPorts(), resolver, publish_default=options.publish_default
    )
    await _find_networks(containers, definitions, network_service, networking, resolver)
    runtime = OciRuntime(tools.runtime, run_root / "runtime", hierarchies)
    runtimes = Runtimes(
        runtime,
        {
            name: OciRuntime(tool, run_root / "runtimes" / name, hierarchies)
            for name, tool in find_others(options.runtimes, tools.runtime).items()
        },
        lambda chosen: Monitor(tools.monitor, chosen, own_group),
    )
    processes = ContainerProcesses(
        root / "container",
        run_root / "container",
        snapshots=snapshots,
        lowers=lowers,
        volume_mounts=volume_mounts,
        networking=networking,
        proxies=PortProxies(own_group),
        runtimes=runtimes,
        init_path=tools.init.path if tools.init else None,
        cgroup_parent=options.cgroup_parent,
    )
    removal = ImageRemoval(
        images,
        content,
        trees,
        lowers,
        lambda image_id: _users(containers, image_id),
        lambda: _stacks(containers),
    )
    announcements = Announcements()
    announcements.subscribe(container_emitter(events, lambda record: _let_images_go(removal, record)))
    locks = ContainerLocks(containers)
    freezing = Freezing(containers, processes, locks, announcements)
    lifecycle = Lifecycle(containers, processes, snapshots, volumes, locks, freezing, announcements)
    execs = Execs(containers, processes, lifecycle.tell)
    health = HealthChecks(containers, lifecycle, processes.run_to_completion)
    views = RootViews(run_root / "view", snapshots, volume_mounts)
    views.open()
    logs = LogRotation(containers, processes.log_path, processes.reopen_log)
    announcements.subscribe(health.heard)
    announcements.subscribe(logs.heard)
    forwarding = SyslogForwarding(containers, logs.lines, processes.directory)
    announcements.subscribe(forwarding.heard)
    linked_names = LinkedNames(containers, lambda record: processes.write_names(record, containers.find))
    announcements.subscribe(linked_names.heard)
    announcements.subscribe(partial(_follow_renames, networking))
    connections = Connections(
        containers,
        networking,
        locks,
        partial(_follow_connections, processes, containers),
        lambda action, record, network: _tell_of_connection(events, action, record, network),
    )
    await lifecycle.adopt()
    await processes.sweep(ids)
    processes.open(ids)
    intake = LayerIntake(content, trees, options.layer_limits)
    idmap = users.idmap if users is not None else None
    creation = Creation(
        containers, images, snapshots, volumes, volume_mounts, hierarchies, runtimes, definitions, idmap
    )
    cache_mounts = CacheMounts(root / "build" / "mounts")
    room = MountRoom(cache_mounts, snapshots)
    runner = StepRunner(
        run_root / "build",
        snapshots,
        network_service,
        definitions,
        resolver,
        runtime,
        room,
        options.cgroup_parent,
        options.layer_limits,
    )
    cache = BuildCache(database, images, content)
    layer_blobs = LayerBlobs(database)
    await layer_blobs.forget_others({diff_id for image in images for diff_id in image.config.diff_ids})
    exchange = Exchange(options.registries, Pulls(images, intake, layer_blobs), Pushes(images, content, layer_blobs))
    builder = Builder(root / "build", images, intake, exchange, runner, cache, cache_mounts, removal)
    await builder.open()
    await removal.collect_garbage()
    health.open()
    logs.open()
    forwarding.open()
    if carry_on:
        lifecycle.carry_on()
    return Engine(
        options=options,
        tools=tools,
        hierarchies=hierarchies,
        database=database,
        content=content,
        trees=trees,
        lowers=lowers,
        snapshots=snapshots,
        images=images,
        intake=intake,
        exchange=exchange,
        removal=removal,
        volumes=volumes,
        volume_mounts=volume_mounts,
        network_service=network_service,
        network_definitions=definitions,
        networks=Networks(definitions, network_service, resolver, containers, events),
        connections=connections,
        resolver=resolver,
        runtimes=runtimes,
        containers=containers,
        processes=processes,
        creation=creation,
        lifecycle=lifecycle,
        freezing=freezing,
        execs=execs,
        health=health,
        logs=logs,
        forwarding=forwarding,
        stats=Stats(containers, hierarchies, processes.group),
        copies=FileCopies(views),
        commits=Commits(images, intake, snapshots, lowers),
        builder=builder,
        care=VolumeCare(volumes, volume_mounts, containers, processes, freezing, idmap),
        events=events,
        lock_fds=lock_fds,
    )


def _mapping_of(root: Path, wanted: str) -> IdMap:
    """The mapping that was asked for; the default one stays what it was at first. Raises InvalidMapping."""
    path = root / "userns-remap"
    if wanted != "default":
        return read_mapping(wanted)
    try:
        return msgspec.json.decode(path.read_bytes(), type=IdMap)
    except FileNotFoundError:
        idmap = read_mapping(wanted)
        write_atomically(path, msgspec.json.encode(idmap))
        return idmap


def _take(root: Path, run_root: Path) -> tuple[int, ...]:
    """Make both roots and lock them. Raises RootLocked, RootUnusable.

    Programs in containers' roots may be setuid, and containers' files secret: nobody else may reach either. Below the run root
    lies the socket, so that is open, and what it holds is not.
    """
    fds: list[int] = []
    for kind, path, mode in (("state", root, 0o700), ("run", run_root, 0o711)):
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
            fd = lock_exclusively(path / "lock")
        except OSError as error:
            raise RootUnusable(kind, path, error) from error
        if fd is None:
            for other in fds:
                os.close(other)
            raise RootLocked(kind, path)
        fds.append(fd)
        path.chmod(mode)
    for name in ("build", "container", "netns", "rootfs", "runtime", "runtimes"):
        (run_root / name).mkdir(mode=0o700, exist_ok=True)
        (run_root / name).chmod(0o700)
    return tuple(fds)


def _own_group(hierarchies: Hierarchies, parent: str) -> Callable[[int], None] | None:
    """How conmon leaves the daemon's group, which a service manager may end as a whole."""
    return partial(hierarchies.enter, f"{parent}/{_MONITORS}") if is_managed() else None


def _tell_of_volume(events: EventLog, action: str, name: str) -> None:
    events.publish(Event("volume", action, name, {"driver": "local"}))


def _users_of_volumes(containers: ContainerStore) -> dict[str, list[str]]:
    """Which running containers have which volumes."""
    users: dict[str, list[str]] = {}
    for record in containers:
        for name in volumes_of(record) if record.state.has_process else ():
            users.setdefault(name, []).append(record.id)
    return users


async def _follow_connections(processes: ContainerProcesses, containers: ContainerStore, record: Record) -> None:
    processes.write_names(record, containers.find)
    await processes.follow_connections(record)


def _tell_of_connection(events: EventLog, action: str, record: Record, network: Network) -> None:
    events.publish(of_endpoint(action, record.id, network.id, network.name, network.driver))


def _follow_renames(networking: Networking, action: str, record: Record, attributes: Mapping[str, str]) -> None:
    if action == "rename":
        networking.renamed(record)


async def _find_networks(
    containers: ContainerStore,
    definitions: NetworkStore,
    service: NetworkService,
    networking: Networking,
    resolver: Resolver,
) -> None:
    """Set all networks up, with what running containers have of them."""
    running = [record for record in containers if record.state.has_process]
    for record in running:
        networking.take_over_ports(record)

    def ports() -> list[PublishedPort]:
        return [port for record in running for port in networking.kernel_ports(record)]

    await service.start(live_endpoints(running), definitions.own, ports)
    definitions.show(service.built_in)
    await resolver.open(networking.sandboxes(running))


def _let_images_go(removal: ImageRemoval, record: Record) -> None:
    for image_id in (record.image_id, *(m.image_id for m in record.image_mounts.values())):
        removal.container_gone(ImageID(Digest(image_id)))


def _users(containers: ContainerStore, image_id: ImageID) -> Iterable[ImageUser]:
    return [
        ImageUser(r.id, r.state.is_running)
        for r in containers
        if r.image_id == image_id or any(m.image_id == image_id for m in r.image_mounts.values())
    ]


def _stacks(containers: ContainerStore) -> Iterable[Sequence[DiffID]]:
    stacks = [stack for r in containers for stack in (r.diff_ids, *(m.diff_ids for m in r.image_mounts.values()))]
    return [[DiffID(Digest(d)) for d in stack] for stack in stacks]
