"""What a container may not be asked to be: wrong values in docker's words, and what lamina cannot honour yet, by its name.

Nothing that a client asks for is ignored in silence.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from lamina.container.config import ContainerConfig, EndpointRequest, HostConfig, IPAMConfig, NetworkingConfig
from lamina.container.errors import ContainerNotFound, UnsupportedOption
from lamina.container.health import on_failure
from lamina.container.log_options import check_log_config
from lamina.container.settings import cdi_devices, donor_in, resources
from lamina.container.store import ContainerStore
from lamina.errors import InvalidArgument
from lamina.linux.signals import signal_number
from lamina.network.model import plain_address
from lamina.network.names import check_extra_host
from lamina.network.ports import read_ports, read_requests
from lamina.network.service import check_addresses
from lamina.oci.config import Healthcheck
from lamina.runtime.capabilities import effective_set
from lamina.runtime.cdi import check_device_name
from lamina.runtime.limits import check_resources, check_ulimits
from lamina.runtime.security import SecurityOptions
from lamina.runtime.settings import Ulimit

_LONGEST_STRING = 128 << 10
"""The kernel's limit for one argument or variable with its end (MAX_ARG_STRLEN, execve(2))."""
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")
_ONE_NETWORK = {
    "host": "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    "none": "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    "container": "conflicting options: a container that shares another's network can be in no other",
}
_MILLISECOND_NS = 1_000_000


def check_config(config: ContainerConfig, host: HostConfig) -> None:
    """Refuse a process that cannot be. *config* is as the client gave it. Raises InvalidArgument."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.hostname and host.uts_mode == "host":
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.links and host.network_mode == "host":
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
        )
    if donor_in(host.network_mode) is not None:
        _check_joined_network(config, host)
    for text in config.exposed_ports or {}:
        read_ports(text)
    if config.healthcheck is not None:
        _check_health(config.healthcheck)


def _check_joined_network(config: ContainerConfig, host: HostConfig) -> None:
    """What a network has is its first container's to choose, not that of who joins it (runconfig/hostconfig_unix.go)."""
    for what, asked in (
        ("hostname and the network mode", config.hostname),
        ("container type network can't be used with links. This would result in undefined behavior", host.links),
        ("dns and the network mode", host.dns),
        ("custom host-to-IP mapping and the network mode", host.extra_hosts),
        ("mac-address and the network mode", config.mac_address),
        ("port publishing and the container type network mode", host.port_bindings or host.publish_all_ports),
        ("port exposing and the container type network mode", config.exposed_ports),
    ):
        if asked:
            raise InvalidArgument(f"conflicting options: {what}")


def check_strings(argv: Iterable[str], env: Iterable[str]) -> None:
    """Refuse what the kernel would refuse to execute. Raises InvalidArgument."""
    for what, strings in (("argument", argv), ("environment variable", env)):
        for text in strings:
            if "\0" in text:
                raise InvalidArgument(f"{what} has a null character: {text[:80]!r}")
            if len(text.encode("utf-8", "replace")) >= _LONGEST_STRING:
                raise InvalidArgument(f"{what} is longer than {_LONGEST_STRING} bytes: {text[:80]}…")


def check_host(config: ContainerConfig, host: HostConfig, *, runtimes: Collection[str]) -> None:
    """Refuse wrong limits and modes, and what is not supported. *config* and *host* are complete. Raises as the module says."""
    SecurityOptions.parse(host.security_opt or [])
    effective_set(host.cap_add or [], host.cap_drop or [], privileged=host.privileged)
    if host.runtime not in runtimes:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    _check_modes(host)
    check_limits(host)
    check_restart(host)
    on_failure(host)
    check_log_config(host.log_config)
    check_ulimits(Ulimit(u.name, u.soft, u.hard) for u in host.ulimits or [])
    for text in host.extra_hosts or []:
        check_extra_host(text)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    _check_console(host)
    if "" in (host.annotations or {}):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    for server in host.dns or []:
        _check_name_server(server)
    _check_device_requests(host)
    _check_storage(host)
    _refuse_unsupported(host)


def check_networking(config: ContainerConfig, host: HostConfig, networking: NetworkingConfig) -> None:
    """Refuse networks that do not exist, and what cannot be had in those that do. Raises as the module says."""
    mode = host.network_mode
    if mode == "container:":
        raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
    endpoints = networking.endpoints_config or {}
    others = set(endpoints) - {mode, "default"}
    if others and (mode in ("host", "none") or mode.startswith("container:")):
        raise InvalidArgument(_ONE_NETWORK[mode.partition(":")[0]])
    built_in = mode if mode in ("bridge", "host", "none") else ""
    own = endpoints.get(mode) or endpoints.get("default")
    if built_in and own is not None:
        if own.ipam_config is not None and (own.ipam_config.ipv4_address or own.ipam_config.ipv6_address):
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if own.links:
            raise InvalidArgument("links of an endpoint are only supported for user-defined networks")
        if own.aliases:
            raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
    read_requests(config.exposed_ports or {}, host.port_bindings or {}, publish_all=host.publish_all_ports)
    check_addresses(None, config.mac_address or None)
    for endpoint in endpoints.values():
        if endpoint is not None:
            _check_endpoint(endpoint)
            if config.mac_address and endpoint.mac_address not in ("", config.mac_address):
                raise InvalidArgument(
                    "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty"
                )


def check_remapped(host: HostConfig) -> None:
    """Refuse what a container in a user namespace of its own cannot have. Raises InvalidArgument, in docker's words."""
    if host.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when "
            "running privileged mode"
        )
    for mode, what in ((host.network_mode, "network namespace"), (host.pid_mode, "PID namespace")):
        if mode == "host":
            raise InvalidArgument(f"cannot share the host's {what} when user namespaces are enabled")


def check_namespaces(host: HostConfig, containers: ContainerStore) -> None:
    """Refuse namespaces of containers that do not exist. Raises InvalidArgument."""
    for mode in (host.ipc_mode, host.pid_mode):
        if mode.startswith("container:"):
            try:
                containers.find(mode.removeprefix("container:"))
            except ContainerNotFound as error:
                raise InvalidArgument(error.message) from None


def _check_console(host: HostConfig) -> None:
    size = host.console_size or [0, 0]
    if len(size) != 2 or not all(0 <= number < 1 << 16 for number in size):
        raise InvalidArgument(f"invalid ConsoleSize {size}: expected a height and a width")


def _check_name_server(text: str) -> None:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None


def _check_device_requests(host: HostConfig) -> None:
    for request in host.device_requests or []:
        if request.driver != "cdi":
            wanted = " ".join(f"[{' '.join(group)}]" for group in request.capabilities or [])
            raise UnsupportedOption(
                f'could not select device driver "{request.driver}" with capabilities: [{wanted}]',
                "lamina has devices by CDI alone: --device vendor/class=name",
            )
    for name in cdi_devices(host):
        check_device_name(name)


def _check_storage(host: HostConfig) -> None:
    """A size needs quotas of the disk's file system, which is not looked after here: in docker's words (graphdriver/overlay2)."""
    for name in host.storage_opt or {}:
        if name != "size":
            raise InvalidArgument(f"Unknown option {name}")
        raise InvalidArgument("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")


def _check_health(check: Healthcheck) -> None:
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    for name, value in times.items():
        if value and value < _MILLISECOND_NS:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _check_modes(host: HostConfig) -> None:
    """Namespaces are private, the host's, or another container's."""
    known = {
        "IPC": (host.ipc_mode, ("", "private", "shareable", "host", "none"), True),
        "PID": (host.pid_mode, ("", "host"), True),
        "UTS": (host.uts_mode, ("", "host"), False),
        "cgroup namespace": (host.cgroupns_mode, ("", "private", "host"), False),
    }
    for kind, (mode, allowed, may_share) in known.items():
        shares = may_share and mode.startswith("container:") and mode != "container:"
        if mode not in allowed and not shares:
            raise InvalidArgument(f"invalid {kind} mode: {mode}")


def check_limits(host: HostConfig) -> None:
    """Refuse limits that contradict each other or cannot be kept. Raises InvalidArgument."""
    for name, value in (("Period", host.cpu_period), ("Quota", host.cpu_quota)):
        if host.nano_cpus and value:
            raise InvalidArgument(f"Conflicting options: Nano CPUs and CPU {name} cannot both be set")
    cpus = os.cpu_count() or 1
    if host.nano_cpus and not 0 < host.nano_cpus <= cpus * 1_000_000_000:
        there_are = f"there are only {cpus} CPUs available"
        raise InvalidArgument(f"Range of CPUs is from 0.01 to {cpus}.00, as {there_are}")
    check_resources(resources(host))
    if host.kernel_memory:
        raise InvalidArgument("limits of kernel memory are not supported: the kernel has given them up")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")


def check_restart(host: HostConfig) -> None:
    """Refuse restart policies that mean nothing. Raises InvalidArgument."""
    policy = host.restart_policy
    if policy.name not in _RESTART_POLICIES:
        known = "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.name}'; {known}")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        name = policy.name or "no"
        raise InvalidArgument(
            f"invalid restart policy: maximum retry count cannot be used with restart policy '{name}'"
        )
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_endpoint(endpoint: EndpointRequest) -> None:
    ipam = endpoint.ipam_config or IPAMConfig()
    check_addresses(ipam.ipv4_address or None, endpoint.mac_address or None)
    if ipam.ipv6_address:
        try:
            if plain_address(ipam.ipv6_address).version != 6:
                raise ValueError
        except ValueError:
            raise InvalidArgument(f"invalid IPv6 address: {ipam.ipv6_address}") from None
    for text in ipam.link_local_ips or []:
        _check_link_local(text)
    for name in endpoint.driver_opts or {}:
        if name != "com.docker.network.endpoint.sysctls":
            raise UnsupportedOption(
                f"network driver option {name!r}", "lamina knows com.docker.network.endpoint.sysctls"
            )


def _check_link_local(text: str) -> None:
    try:
        is_one = plain_address(text).is_link_local
    except ValueError:
        is_one = False
    if not is_one:
        raise InvalidArgument(f"invalid link-local IP address: {text}")


def _refuse_unsupported(host: HostConfig) -> None:
    _refuse(
        {
            "--userns": host.userns_mode not in ("", "host"),
            "--volume-driver": host.volume_driver not in ("", "local"),
            "--isolation": host.isolation not in ("", "default"),
            "--cpu-count and --cpu-percent": host.cpu_count or host.cpu_percent,
            "--io-maxbandwidth and --io-maxiops": host.io_maximum_bandwidth or host.io_maximum_iops,
            "--kernel-memory-tcp": host.kernel_memory_tcp,
        }
    )


def _refuse(options: Mapping[str, Any]) -> None:
    for option, asked in options.items():
        if asked:
            raise UnsupportedOption(option)
