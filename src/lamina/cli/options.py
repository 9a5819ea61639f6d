"""The flags of ``run`` and ``create``: how each is read, and the field of the API's HostConfig that it sets if it sets just one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from lamina.cli import values
from lamina.cli.grammar import REMAINDER, Convert, Options, Parser, whole
from lamina.cli.mounts import parse_mount
from lamina.cli.networking import network
from lamina.cli.values import parse_size


class _Option(NamedTuple):
    """A flag; *field* is of HostConfig, None for what ``container_config`` puts where it belongs."""

    names: str
    help: str
    field: str | None = None
    convert: Convert = str
    metavar: str = "string"
    default: Any = None


# the last one given counts
_VALUES = (
    _Option(
        "--blkio-weight", "Share of block I/O, 10 to 1000; 0 for none", "BlkioWeight", values.unsigned_16, "uint16"
    ),
    _Option("--cgroup-parent", "Control group above the container's", "CgroupParent"),
    _Option("--cgroupns", "Control group namespace (host|private)", "CgroupnsMode"),
    _Option("--cidfile", "Write the container ID to the file"),
    _Option("--cpu-count", "Number of CPUs (Windows only)", "CpuCount", whole, "int"),
    _Option("--cpu-percent", "Share of CPUs (Windows only)", "CpuPercent", whole, "int"),
    _Option("--cpu-period", "Length of a period of the CPU quota, in microseconds", "CpuPeriod", whole, "int"),
    _Option("--cpu-quota", "CPU time in each period, in microseconds", "CpuQuota", whole, "int"),
    _Option("--cpu-rt-period", "Length of a real-time period, in microseconds", "CpuRealtimePeriod", whole, "int"),
    _Option("--cpu-rt-runtime", "Real-time in each period, in microseconds", "CpuRealtimeRuntime", whole, "int"),
    _Option("-c --cpu-shares", "CPU shares (relative weight)", "CpuShares", whole, "int"),
    _Option("--cpus", "Number of CPUs", "NanoCpus", values.nano_cpus, "decimal"),
    _Option("--cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)", "CpusetCpus"),
    _Option("--cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)", "CpusetMems"),
    _Option("--domainname", "Container NIS domain name"),
    _Option("--entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    _Option("--health-cmd", "Command to run to check health"),
    _Option("--health-interval", "Time between checks (ms|s|m|h)", None, values.nanoseconds, "duration", 0),
    _Option("--health-on-failure", "What happens to an unhealthy container: none, kill, restart, stop"),
    _Option("--health-retries", "Failures in a row that make the container unhealthy", None, whole, "int", 0),
    _Option("--health-start-interval", "Time between checks at the start", None, values.nanoseconds, "duration", 0),
    _Option(
        "--health-start-period",
        "Time to start in, in which failures do not count",
        None,
        values.nanoseconds,
        "duration",
        0,
    ),
    _Option("--health-timeout", "Longest time of one check", None, values.nanoseconds, "duration", 0),
    _Option("-h --hostname", "Container host name"),
    _Option(
        "--io-maxbandwidth", "Bandwidth of the system drive (Windows only)", "IOMaximumBandwidth", parse_size, "bytes"
    ),
    _Option("--io-maxiops", "Operations of the system drive (Windows only)", "IOMaximumIOps", whole, "uint"),
    _Option("--ip", "IPv4 address (172.30.100.104)"),
    _Option("--ip6", "IPv6 address (2001:db8::33)"),
    _Option("--ipc", "IPC mode to use", "IpcMode"),
    _Option("--isolation", "Container isolation technology", "Isolation"),
    _Option("--kernel-memory", "Kernel memory limit", "KernelMemory", parse_size, "bytes"),
    _Option("--log-driver", "Logging driver for the container"),
    _Option("--mac-address", "Container MAC address (92:d0:c6:0a:29:33)"),
    _Option("-m --memory", "Memory limit", "Memory", parse_size, "bytes"),
    _Option("--memory-reservation", "Memory soft limit", "MemoryReservation", parse_size, "bytes"),
    _Option("--memory-swap", "Memory and swap together; -1 for any amount of swap", "MemorySwap", parse_size, "bytes"),
    _Option("--memory-swappiness", "How readily memory is swapped, 0 to 100", "MemorySwappiness", whole, "int"),
    _Option("--name", "Assign a name to the container"),
    _Option("--oom-score-adj", "How readily the kernel kills it, -1000 to 1000", "OomScoreAdj", whole, "int"),
    _Option("--pid", "PID namespace to use", "PidMode"),
    _Option("--pids-limit", "Number of processes; -1 for any", "PidsLimit", whole, "int"),
    _Option("--platform", "Set platform if server is multi-platform capable"),
    _Option("--pull", 'Pull image before running ("always", "missing", "never")', default="missing"),
    _Option("--restart", "Restart policy to apply when a container exits"),
    _Option("--runtime", "Runtime to use for this container", "Runtime"),
    _Option("--shm-size", "Size of /dev/shm", "ShmSize", parse_size, "bytes"),
    _Option("--stop-signal", "Signal to stop the container"),
    _Option("--stop-timeout", "Seconds to wait before the container is killed", None, whole, "int"),
    _Option("-u --user", "User name or UID (<name|uid>[:<group|gid>])"),
    _Option("--userns", "User namespace to use", "UsernsMode"),
    _Option("--uts", "UTS namespace to use", "UTSMode"),
    _Option("--volume-driver", "Driver of volumes that are made", "VolumeDriver"),
    _Option("-w --workdir", "Working directory inside the container"),
)
# may be given several times
_LISTS = (
    _Option("--add-host", "Add a custom host-to-IP mapping (host:ip)", "ExtraHosts", values.extra_host),
    _Option("--annotation", "Annotation that the runtime sees", metavar="map"),
    _Option("-a --attach", "Attach to STDIN, STDOUT or STDERR", None, values.stream),
    _Option(
        "--blkio-weight-device", "Share of a device's I/O (path:weight)", "BlkioWeightDevice", values.device_weight
    ),
    _Option("--cap-add", "Add Linux capabilities", "CapAdd"),
    _Option("--cap-drop", "Drop Linux capabilities", "CapDrop"),
    _Option("--device", "Add a host device to the container", "Devices"),
    _Option("--device-cgroup-rule", "Rule for the devices it may use", "DeviceCgroupRules", values.device_rule),
    _Option("--device-read-bps", "Bytes a second read from a device", "BlkioDeviceReadBps", values.device_bytes),
    _Option("--device-read-iops", "Reads a second from a device", "BlkioDeviceReadIOps", values.device_operations),
    _Option("--device-write-bps", "Bytes a second written to a device", "BlkioDeviceWriteBps", values.device_bytes),
    _Option("--device-write-iops", "Writes a second to a device", "BlkioDeviceWriteIOps", values.device_operations),
    _Option("--dns", "Set custom DNS servers", "Dns", values.ip_address),
    _Option("--dns-option --dns-opt", "Set DNS options", "DnsOptions"),
    _Option("--dns-search", "Set custom DNS search domains", "DnsSearch"),
    _Option("-e --env", "Set environment variables", None, values.environment),
    _Option("--env-file", "Read in a file of environment variables"),
    _Option("--expose", "Expose a port or a range of ports"),
    _Option(
        "--gpus",
        "GPU devices to add to the container ('all' for all)",
        "DeviceRequests",
        values.gpu_request,
        "gpu-request",
    ),
    _Option("--group-add", "Add additional groups to join", "GroupAdd"),
    _Option("-l --label", "Set metadata on a container", None, values.label),
    _Option("--label-file", "Read in a line delimited file of labels"),
    _Option("--link", "Add link to another container", "Links", values.link),
    _Option("--link-local-ip", "Container link-local addresses", None, values.ip_address),
    _Option("--log-opt", "Log driver options"),
    _Option("--mount", "Attach a filesystem mount to the container", "Mounts", parse_mount, "mount"),
    _Option("--network --net", "Connect a container to a network", None, network, "network"),
    _Option("--network-alias --net-alias", "Another name of the container in its network"),
    _Option("-p --publish", "Publish a container's port(s) to the host"),
    _Option("--security-opt", "Security options"),
    _Option("--storage-opt", "Storage driver options for the container"),
    _Option("--sysctl", "Kernel parameters of the container's namespaces", None, values.sysctl, "map"),
    _Option("--tmpfs", "Mount a tmpfs directory"),
    _Option("--ulimit", "Limits of the container's processes", "Ulimits", values.ulimit, "ulimit"),
    _Option("-v --volume", "Bind mount a volume"),
    _Option("--volumes-from", "Mount volumes from the specified container(s)", "VolumesFrom"),
)
_FLAGS = (
    _Option("--disable-content-trust", "Skip image verification", default=True),
    _Option("--init", "Run an init that forwards signals and reaps processes", "Init"),
    _Option("-i --interactive", "Keep STDIN open even if not attached"),
    _Option("--no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    _Option("--oom-kill-disable", "Disable OOM Killer", "OomKillDisable"),
    _Option("--privileged", "Give extended privileges to this container", "Privileged"),
    _Option("-P --publish-all", "Publish all exposed ports to random ports", "PublishAllPorts"),
    _Option("-q --quiet", "Suppress the pull output"),
    _Option("--read-only", "Mount the container's root filesystem as read only", "ReadonlyRootfs"),
    _Option("--rm", "Remove the container and its anonymous volumes when it exits", "AutoRemove"),
    _Option("-t --tty", "Allocate a pseudo-TTY"),
    _Option("--use-api-socket", "Bind mount the API's socket"),
)
# those of them that ``update`` has, too
_UPDATED = frozenset(
    "--blkio-weight --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpu-shares --cpus --cpuset-cpus --cpuset-mems "
    "--kernel-memory --memory --memory-reservation --memory-swap --pids-limit --restart".split()
)


def parse_options(command: str, argv: list[str]) -> Options:
    """Read the command line of ``run`` or ``create``. Raises UsageError."""
    parser = Parser(command, "[OPTIONS] IMAGE [COMMAND] [ARG...]")
    _add_values(parser, _VALUES)
    for o in _LISTS:
        metavar = "list" if o.metavar == "string" else o.metavar
        parser.values(*o.names.split(), help=o.help, convert=o.convert, metavar=metavar)
    for o in _FLAGS:
        parser.flag(*o.names.split(), help=o.help, default=bool(o.default))
    if command == "run":
        parser.flag("-d", "--detach", help="Run container in background and print container ID")
        parser.value("--detach-keys", help="Override the key sequence for detaching a container")
        parser.flag("--sig-proxy", default=True, help="Proxy received signals to the process (default true)")
    parser.add_argument("image")
    parser.add_argument("command", nargs=REMAINDER)
    return parser.parse(argv)


def parse_update(argv: list[str]) -> Options:
    """Read the command line of ``update``. Raises UsageError."""
    parser = Parser("update", "[OPTIONS] CONTAINER [CONTAINER...]")
    _add_values(parser, [option for option in _VALUES if option.names.split()[-1] in _UPDATED])
    parser.add_argument("containers", nargs="+")
    return parser.parse(argv)


def _add_values(parser: Parser, options: Iterable[_Option]) -> None:
    for o in options:
        parser.value(*o.names.split(), help=o.help, default=o.default, convert=o.convert, metavar=o.metavar)


def host_fields(options: Options) -> dict[str, Any]:
    """The fields of HostConfig that one flag each sets, of the flags that were given to whatever command."""
    fields = {}
    for option in (*_VALUES, *_LISTS, *_FLAGS):
        attribute = next(n for n in option.names.split() if n.startswith("--"))[2:].replace("-", "_")
        given = getattr(options, attribute, None)
        if option.field is not None and given is not None and given is not False and given != []:
            fields[option.field] = given
    return fields
