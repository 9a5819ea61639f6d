"""What a case works with: docker-py against a daemon, every answer compared with the specification, every request taken down."""

from __future__ import annotations

import io
import json
import secrets
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import jsonschema
import pytest

from compat.api_specification import check, check_object
from compat.matrix.keys import keys_in, template_of
from conftest import Daemon

VERSION = "1.51"
TIMEOUT_S = 30


@dataclass(frozen=True)
class Case:
    """What is sent for the keys that it *covers*, and must be observable then; a *defect* says why that is not so yet."""

    covers: str
    check: Callable[[Lab], None]
    name: str = ""
    defect: str = ""

    @property
    def keys(self) -> list[str]:
        """A line of ``covers`` has an owner and names: ``HostConfig: Memory MemorySwap``, ``GET /events? since until``."""
        return [key for line in self.covers.strip().splitlines() for key in _expanded(line.strip())]

    @property
    def title(self) -> str:
        return self.name or self.check.__name__.strip("_")


def _title(keys: str) -> str:
    return keys.replace(": ", ".").replace("\n", " ")


def _expanded(line: str) -> list[str]:
    """A line's names as full keys."""
    for mark, joint in ((": ", "."), ("? ", "?")):
        owner, found, names = line.partition(mark)
        if found:
            return [f"{owner}{joint}{name}" for name in names.split()]
    raise ValueError(f"no key: {line}")


class Cases(list[Case]):
    """A table of cases, which functions are put into by decorating them."""

    def covers(
        self, keys: str, defect: str = "", name: str = ""
    ) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
        """The function checks the keys."""

        def add(function: Callable[[Lab], None]) -> Callable[[Lab], None]:
            self.append(Case(keys, function, name, defect))
            return function

        return add

    def shows(self, keys: str, script: str, expected: str, defect: str = "", **config: Any) -> None:
        """A container that is made so says *expected* when it runs *script*."""

        def run(lab: Lab) -> None:
            assert lab.run(script, **config) == expected

        self.append(Case(keys, run, _title(keys), defect))

    def inspected(self, keys: str, defect: str = "", **config: Any) -> None:
        """A container that is made so is shown with exactly what was asked for, where the keys say."""

        def run(lab: Lab) -> None:
            container = lab.create(["true"], **config)
            shown = lab.api.inspect_container(container)
            for key, asked in config.items():
                place = shown["HostConfig"] if key == "host" else shown["Config"]
                for name, value in asked.items() if key == "host" else [(key, asked)]:
                    assert place[name] == value
            lab.api.start(container)
            assert lab.api.wait(container)["StatusCode"] == 0

        self.append(Case(keys, run, _title(keys), defect))

    def refuses(self, keys: str, statuses: Sequence[int], *words: str, defect: str = "", **config: Any) -> None:
        """A container cannot be made so; the message has all *words* in it."""

        def run(lab: Lab) -> None:
            lab.refused(statuses, *words, **config)

        self.append(Case(keys, run, _title(keys), defect))


class Lab:
    """Makes containers with docker-py, and removes them in the end. Names with a small letter are docker-py's, others the API's own."""

    def __init__(self, daemon: Daemon, tmp_path: Path) -> None:
        self.daemon = daemon
        self.tmp_path = tmp_path
        self.sent: set[str] = set()
        self.api: Any = docker.APIClient(base_url=daemon.host, version=VERSION, timeout=TIMEOUT_S)
        self.api.hooks["response"].append(self._examine)
        self.made: list[str] = []
        self.images: list[str] = []
        self.volumes: list[str] = []
        self.networks: list[str] = []

    def close(self) -> None:
        """Remove what was made."""
        for container in self.made:
            with suppress(docker.errors.NotFound):
                self.api.remove_container(container, force=True, v=True)
        for network in self.networks:
            with suppress(docker.errors.NotFound):
                self.api.remove_network(network)
        for image in self.images:
            with suppress(docker.errors.NotFound):
                self.api.remove_image(image, force=True)
        for volume in self.volumes:
            with suppress(docker.errors.NotFound):
                self.api.remove_volume(volume, force=True)
        self.api.close()

    def _examine(self, response: Any, stream: bool = False, **_: Any) -> None:
        """Take a request down, and compare the answer with the specification; streams are the cases' own to compare."""
        request = response.request
        self.sent |= keys_in(request.method, request.url, request.body)
        template = template_of(request.method, request.url)
        if template is None or request.method == "HEAD":
            return
        if response.status_code >= 400:
            check_object("ErrorResponse", response.json())
            assert response.json()["message"]
        elif not stream and response.status_code != 304:
            kind = response.headers.get("content-type", "")
            if not kind or "json" in kind:
                _compare(request.method, template, response.status_code, response.json() if kind else None)

    def create(
        self,
        command: Sequence[str] | str | None = "true",
        host: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
        image: str = "busybox",
        **config: Any,
    ) -> str:
        """A container; a *command* of one string is a shell's."""
        words = ["sh", "-c", command] if isinstance(command, str) else command
        own, raw = _told_apart(config)
        own_host, raw_host = _told_apart(host or {})
        settings = self.api.create_host_config(**own_host) | raw_host
        body = self.api.create_container_config(image, words, host_config=settings, **own) | raw
        created = self.api.create_container_from_config(body, **(query or {}))
        self.made.append(created["Id"])
        self.warnings = created["Warnings"] or []
        return str(created["Id"])

    def start(self, command: Sequence[str] | str | None = "exec sleep 600", **config: Any) -> str:
        """A container that runs."""
        container = self.create(command, **config)
        self.api.start(container)
        return container

    def run(self, script: str, code: int = 0, **config: Any) -> str:
        """What a container says that runs a shell's script to its end."""
        container = self.start(script, **config)
        ended = self.api.wait(container)["StatusCode"]
        output: str = self.api.logs(container).decode().strip()
        assert ended == code, f"{ended}: {output}"
        return output

    def execute(self, container: str, script: str, **options: Any) -> str:
        """What a shell in a running container says."""
        made = self.api.exec_create(container, ["sh", "-c", script], **options)
        output: str = self.api.exec_start(made["Id"]).decode()
        return output.strip()

    def refused(self, statuses: Sequence[int], *words: str, starts: bool = False, **config: Any) -> None:
        """Neither is a container made, nor, if it *starts*, does it run; the message says why."""
        before = set(self.ids())
        with pytest.raises(docker.errors.APIError) as raised:
            self.create("true", **config)
            if starts:
                self.api.start(self.made[-1])
        self.told(raised.value, statuses, *words)
        assert starts or set(self.ids()) == before

    def told(self, error: Any, statuses: Sequence[int], *words: str) -> None:
        """The error is of this kind, and its message has all *words* in it."""
        assert error.status_code in statuses, (error.status_code, error.explanation)
        for word in words:
            assert word.lower() in error.explanation.lower(), error.explanation

    def ids(self, **query: Any) -> list[str]:
        """All containers, the newest first."""
        return [c["Id"] for c in self.api.containers(**{"all": True, **query})]

    def get(self, path: str, /, **query: Any) -> Any:
        """A request that docker-py has no arguments for."""
        return self._asked("GET", path, query)

    def post(self, path: str, body: Any = None, /, **query: Any) -> Any:
        """As ``get``; *body* is sent as JSON."""
        return self._asked("POST", path, query, json=body)

    def put(self, path: str, data: bytes, /, **query: Any) -> Any:
        """As ``get``, with an archive."""
        return self._asked("PUT", path, query, data=data, headers={"Content-Type": "application/x-tar"})

    def head(self, path: str, /, **query: Any) -> Any:
        """As ``get``; whatever the status is."""
        return self.api.head(f"{self.api.base_url}/v{VERSION}{path}", params=query, timeout=TIMEOUT_S)

    @contextmanager
    def asked(self, method: str, path: str, /, **query: Any) -> Iterator[Callable[[], Any]]:
        """A request whose head has been answered; what is given reads the body, compares it with the specification, and returns it."""
        with closing(self._asked(method, path, query, stream=True)) as response:

            def body() -> Any:
                value = response.json()
                _compare(method, str(template_of(method, response.url)), response.status_code, value)
                return value

            yield body

    def unix_socket(self) -> socket.socket:
        """A connection to the daemon."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT_S)
        sock.connect(str(self.daemon.socket_path))
        return sock

    def _asked(self, method: str, path: str, query: dict[str, Any], **options: Any) -> Any:
        url = f"{self.api.base_url}/v{VERSION}{path}"
        response = self.api.request(method, url, params=query, timeout=TIMEOUT_S, **options)
        self.api._raise_for_status(response)
        return response

    def state(self, container: str) -> Any:
        """What ``inspect`` says of the process."""
        return self.api.inspect_container(container)["State"]

    def events(self, since: float, **filters: Any) -> list[Any]:
        """What has happened since a moment."""
        stream = self.api.events(since=f"{since:.9f}", until=f"{time.time():.9f}", filters=filters, decode=True)
        with closing(stream):
            found = list(stream)
        for event in found:
            check_object("EventMessage", event)
        return found

    def until(self, condition: Callable[[], Any], what: str = "", timeout_s: float = TIMEOUT_S) -> Any:
        """Wait for something to be so."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, what or "it does not come to be"
            time.sleep(0.05)
        return value

    def name(self) -> str:
        """One that nothing else has."""
        return f"matrix-{secrets.token_hex(4)}"

    @contextmanager
    def attached(self, container: str, **params: Any) -> Iterator[Any]:
        """A socket that is joined to a container's streams."""
        stream = self.api.attach_socket(container, params=params)
        with joined(stream) as sock:
            yield sock


def _compare(method: str, template: str, status: int, body: Any) -> None:
    """As the specification's ``check``, with a short message."""
    wrong = ""
    try:
        check(method, template, status, body)
    except jsonschema.ValidationError as error:
        wrong = f"{error.message} at {error.json_path}"
    if wrong:
        pytest.fail(f"{method} {template} {status}: {wrong}")


def _told_apart(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """docker-py's arguments, and the API's fields."""
    own = {name: value for name, value in fields.items() if not name[0].isupper()}
    return own, {name: value for name, value in fields.items() if name[0].isupper()}


class _Joined:
    """A socket, of which the first bytes may have come with the answer's head, where docker-py forgets them."""

    def __init__(self, sock: Any, reader: Any) -> None:
        self._sock = sock
        self._reader = reader

    def recv(self, size: int) -> bytes:
        data: bytes = self._reader.read1(size)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@contextmanager
def joined(stream: Any) -> Iterator[Any]:
    """The socket of what docker-py gives for one."""
    sock, response = stream._sock, stream._response
    sock.settimeout(TIMEOUT_S)
    try:
        yield _Joined(sock, response.raw._fp.fp)
    finally:
        response.close()
        sock.close()


def everything(sock: Any) -> bytes:
    """What comes until the other side ends."""
    found = b""
    while data := sock.recv(65536):
        found += data
    return found


def tar_of(files: dict[str, bytes], uid: int = 0) -> bytes:
    """An archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size, header.uid, header.gid = len(data), uid, uid
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def as_json(value: Any) -> str:
    """As a query's parameter."""
    return json.dumps(value)
