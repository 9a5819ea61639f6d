"""What ``run`` and ``create`` ask for, as the API's body. Errors are ValueErrors and OSErrors."""

from __future__ import annotations

import json
from typing import Any

from lamina.cli.grammar import Options
from lamina.cli.mounts import binds_and_volumes
from lamina.cli.networking import endpoints
from lamina.cli.options import host_fields
from lamina.cli.ports import Bindings, exposed, published
from lamina.cli.values import device, file_lines, pairs, restart_policy

_STREAMS = ("stdout", "stderr")
_API_SOCKET = "/var/run/docker.sock"


def attached_streams(options: Options) -> tuple[str, ...]:
    """The streams that the container is made for to be attached to; all that there are if none are named."""
    if getattr(options, "detach", False):
        return ()
    if options.attach:
        return tuple(options.attach)
    return ("stdin", *_STREAMS) if options.interactive else _STREAMS


def container_body(options: Options, host: str | None) -> dict[str, Any]:
    """The body of ``POST /containers/create``. Reads the files that flags name. Raises ValueError or OSError."""
    attached = attached_streams(options)
    binds, volumes = binds_and_volumes(options.volume)
    bindings = _bindings(options.publish)
    ports = [port for text in options.expose for port in exposed(text)]
    body: dict[str, Any] = {
        "Image": options.image,
        "Cmd": options.command or None,
        "Hostname": options.hostname or "",
        "Domainname": options.domainname or "",
        "User": options.user or "",
        "WorkingDir": options.workdir or "",
        "Env": [*_lines(options.env_file, takes_own_values=True), *options.env],
        "Labels": pairs([*_lines(options.label_file, takes_own_values=False), *options.label]),
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and "stdin" in attached,
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "ExposedPorts": {port: {} for port in [*ports, *bindings]},
        "Volumes": volumes,
        "HostConfig": _host_config(options, binds, bindings, host),
    }
    if options.entrypoint is not None:
        body["Entrypoint"] = [options.entrypoint]
    if options.stop_signal:
        body["StopSignal"] = options.stop_signal
    if options.stop_timeout is not None:
        body["StopTimeout"] = options.stop_timeout
    if (check := _health_check(options)) is not None:
        body["Healthcheck"] = check
    if joined := endpoints(options):
        body["NetworkingConfig"] = {"EndpointsConfig": joined}
    return body


def _lines(paths: list[str], *, takes_own_values: bool) -> list[str]:
    return [line for path in paths for line in file_lines(path, takes_own_values=takes_own_values)]


def _bindings(texts: list[str]) -> Bindings:
    bindings: Bindings = {}
    for text in texts:
        for port, places in published(text).items():
            bindings.setdefault(port, []).extend(places)
    return bindings


def _health_check(options: Options) -> dict[str, Any] | None:
    times = {
        "Interval": options.health_interval,
        "Timeout": options.health_timeout,
        "StartPeriod": options.health_start_period,
        "StartInterval": options.health_start_interval,
        "Retries": options.health_retries,
    }
    given = {field: value for field, value in times.items() if value}
    if options.no_healthcheck:
        if given or options.health_cmd:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    for flag in ("interval", "timeout", "retries", "start_period", "start_interval"):
        if getattr(options, f"health_{flag}") < 0:
            raise ValueError(f"--health-{flag.replace('_', '-')} cannot be negative")
    if options.health_cmd:
        return {"Test": ["CMD-SHELL", options.health_cmd], **given}
    return given or None


def _host_config(options: Options, binds: list[str], bindings: Bindings, host: str | None) -> dict[str, Any]:
    fields = host_fields(options)
    fields["Devices"] = [device(text) for text in options.device]
    fields["Binds"] = binds
    fields["PortBindings"] = bindings
    fields["Tmpfs"] = {text.partition(":")[0]: text.partition(":")[2] for text in options.tmpfs}
    fields["Sysctls"] = pairs(options.sysctl)
    fields["Annotations"] = pairs(options.annotation)
    if options.health_on_failure:
        fields["Annotations"]["lamina.health-on-failure"] = options.health_on_failure
    fields["StorageOpt"] = _storage_options(options.storage_opt)
    fields["DeviceRequests"] = options.gpus
    if options.network:
        fields["NetworkMode"] = options.network[0][0]
    if options.restart:
        fields["RestartPolicy"] = _restart(options)
    if options.log_driver or options.log_opt:
        if options.log_driver == "none" and options.log_opt:
            raise ValueError("invalid logging opts for driver none")
        fields["LogConfig"] = {"Type": options.log_driver or "", "Config": pairs(options.log_opt)}
    if options.use_api_socket:
        fields["Mounts"] = [*fields.get("Mounts", []), _api_socket(host)]
    fields |= _security(options.security_opt)
    return {name: value for name, value in fields.items() if value not in ({}, []) or name in _MEANT_EMPTY}


_MEANT_EMPTY = frozenset({"MaskedPaths", "ReadonlyPaths"})


def _restart(options: Options) -> dict[str, Any]:
    policy = restart_policy(options.restart)
    if options.rm and policy["Name"] not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    return policy


def _storage_options(texts: list[str]) -> dict[str, str]:
    if any("=" not in text for text in texts):
        raise ValueError("invalid storage option")
    return pairs(texts)


def _security(texts: list[str]) -> dict[str, Any]:
    """``--security-opt``: a seccomp profile's file goes as its text; the daemon may be elsewhere."""
    options: list[str] = []
    paths: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            name, equals, value = text.partition(":")
        if not equals and name != "no-new-privileges":
            raise ValueError(f'Invalid --security-opt: "{text}"')
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            options.append(f"seccomp={_compact_json(value)}")
        elif text == "systempaths=unconfined":
            paths = {"MaskedPaths": [], "ReadonlyPaths": []}
        else:
            options.append(text)
    return {"SecurityOpt": options, **paths}


def _compact_json(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"), ensure_ascii=False)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise ValueError(f"opening seccomp profile ({path}) failed: open {path}: {why}") from None
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def _api_socket(host: str | None) -> dict[str, Any]:
    from lamina.client.address import DEFAULT_SOCKET

    address = host or f"unix://{DEFAULT_SOCKET}"
    if not address.startswith("unix://"):
        raise ValueError("flag --use-api-socket can only be used with a daemon on a unix socket")
    return {"Type": "bind", "Source": address.removeprefix("unix://"), "Target": _API_SOCKET, "BindOptions": {}}
