"""``lamina registry serve`` by the letter of the distribution-spec, and with the clients that others wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3

import registries
from conftest import Daemon, serving
from registries import OwnRegistry, htpasswd_line, serving_own
from troubled import Trouble, troubled
from waiting import wait_until

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2}


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass
class Api:
    """Raw requests to a registry."""

    host: str
    authorization: str = ""

    def __post_init__(self) -> None:
        self._pool = urllib3.PoolManager(retries=False)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.authorization:
            sent["Authorization"] = self.authorization
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        return self._pool.request(method, url, body=body, headers=sent, redirect=False, timeout=20)

    def upload(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        """Store a blob; returns its digest."""
        begun = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert begun.status == 202
        place = begun.headers["Location"]
        done = self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest(data, algorithm)}", data)
        assert done.status == 201, done.data
        return digest(data, algorithm)

    def manifest(self, name: str, reference: str, **fields: Any) -> tuple[str, bytes]:
        """Store a manifest with an empty config and one layer; returns its digest and bytes."""
        config, layer = self.upload(name, b"{}"), self.upload(name, f"layer of {name}".encode())
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {**EMPTY, "digest": config},
            "layers": [{"mediaType": "application/octet-stream", "digest": layer, "size": len(f"layer of {name}")}],
            **fields,
        }
        data = json.dumps(document).encode()
        put = self.ask("PUT", f"/v2/{name}/manifests/{reference}", data, Content_Type=OCI_MANIFEST)
        assert put.status == 201, put.data
        return digest(data), data


def code(response: urllib3.BaseHTTPResponse) -> str:
    return str(json.loads(response.data)["errors"][0]["code"])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRegistry]:
    with serving_own(tmp_path_factory.mktemp("own-registry")) as made:
        yield made


@pytest.fixture
def api(own: OwnRegistry) -> Api:
    return Api(own.host)


def test_what_it_is(api: Api) -> None:
    assert (api.ask("GET", "/v2/").status, api.ask("GET", "/v2").status) == (200, 200)
    assert api.ask("GET", "/healthz").status == 200
    assert api.ask("GET", "/nothing").status == 404


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_in_one_request(api: Api, algorithm: str) -> None:
    data = b"monolithic " + algorithm.encode()
    name = digest(data, algorithm)
    posted = api.ask("POST", f"/v2/one/request/blobs/uploads/?digest={name}", data)
    assert posted.status == 201
    assert posted.headers["Docker-Content-Digest"] == name
    got = api.ask("GET", f"/v2/one/request/blobs/{name}")
    assert (got.status, got.data) == (200, data)
    head = api.ask("HEAD", f"/v2/one/request/blobs/{name}")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(data)))


def test_a_blob_in_chunks(api: Api) -> None:
    begun = api.ask("POST", "/v2/chunks/blobs/uploads/")
    assert (begun.status, begun.headers["Range"]) == (202, "0-0")
    place = begun.headers["Location"]
    first = api.ask("PATCH", place, b"01234", Content_Range="0-4")
    assert (first.status, first.headers["Range"]) == (202, "0-4")
    wrong = api.ask("PATCH", place, b"9", Content_Range="9-9")
    assert (wrong.status, code(wrong)) == (416, "RANGE_INVALID")
    state = api.ask("GET", place)
    assert (state.status, state.headers["Range"]) == (204, "0-4")
    second = api.ask("PATCH", first.headers["Location"], iter([b"56", b"78"]))
    assert second.headers["Range"] == "0-8"
    done = api.ask("PUT", f"{place}?digest={digest(b'0123456789')}", b"9", Content_Range="9-9")
    assert done.status == 201
    assert api.ask("GET", f"/v2/chunks/blobs/{digest(b'0123456789')}").data == b"0123456789"
    assert api.ask("GET", place).status == 404


def test_an_upload_with_the_wrong_digest_leaves_nothing(api: Api, own: OwnRegistry) -> None:
    place = api.ask("POST", "/v2/wrong/blobs/uploads/").headers["Location"]
    put = api.ask("PUT", f"{place}?digest={digest(b'other')}", b"bytes")
    assert (put.status, code(put)) == (400, "DIGEST_INVALID")
    assert api.ask("GET", place).status == 404
    assert api.ask("HEAD", f"/v2/wrong/blobs/{digest(b'other')}").status == 404
    cancelled = api.ask("POST", "/v2/wrong/blobs/uploads/").headers["Location"]
    assert api.ask("DELETE", cancelled).status == 204
    assert code(api.ask("PATCH", cancelled, b"x")) == "BLOB_UPLOAD_UNKNOWN"
    assert list((own.root / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-100", 206, b"89"),
        ("bytes=10-", 416, None),
        ("bytes=0-1,4-5", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_parts_of_a_blob(api: Api, asked: str, status: int, expected: bytes | None) -> None:
    name = api.upload("parts", b"0123456789")
    got = api.ask("GET", f"/v2/parts/blobs/{name}", Range=asked)
    assert got.status == status
    if expected is not None:
        assert got.data == expected
    if status == 206:
        start = b"0123456789".index(expected or b"")
        assert got.headers["Content-Range"] == f"bytes {start}-{start + len(expected or b'') - 1}/10"


def test_a_blob_is_stored_once_and_mounted(api: Api, own: OwnRegistry) -> None:
    name = api.upload("mount/from", b"mounted bytes")
    before = own.blobs()
    mounted = api.ask("POST", f"/v2/mount/to/blobs/uploads/?mount={name}&from=mount/from")
    assert (mounted.status, mounted.headers["Docker-Content-Digest"]) == (201, name)
    assert api.ask("GET", f"/v2/mount/to/blobs/{name}").data == b"mounted bytes"
    other = api.ask("POST", f"/v2/mount/to/blobs/uploads/?mount={digest(b'no such')}&from=mount/from")
    assert other.status == 202
    api.ask("DELETE", other.headers["Location"])
    api.upload("mount/third", b"mounted bytes")
    assert own.blobs() == before
    assert api.ask("GET", f"/v2/mount/fourth/blobs/{name}").status == 404


def test_manifests_by_tag_and_digest(api: Api) -> None:
    name, data = api.manifest("manifests", "v1")
    for reference in ("v1", name):
        got = api.ask("GET", f"/v2/manifests/manifests/{reference}")
        assert (got.status, got.data, got.headers["Content-Type"]) == (200, data, OCI_MANIFEST)
        assert got.headers["Docker-Content-Digest"] == name
        head = api.ask("HEAD", f"/v2/manifests/manifests/{reference}")
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(data)))
    assert code(api.ask("GET", "/v2/manifests/manifests/v2")) == "MANIFEST_UNKNOWN"
    assert code(api.ask("GET", "/v2/nosuch/manifests/v2")) == "NAME_UNKNOWN"
    wrong = api.ask("PUT", f"/v2/manifests/manifests/{digest(b'x')}", data, Content_Type=OCI_MANIFEST)
    assert code(wrong) == "DIGEST_INVALID"
    sha512 = digest(data, "sha512")
    assert api.ask("PUT", f"/v2/manifests/manifests/{sha512}", data, Content_Type=OCI_MANIFEST).status == 201
    assert api.ask("GET", f"/v2/manifests/manifests/{sha512}").data == data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"no json", "MANIFEST_INVALID"),
        (b"{}", "MANIFEST_INVALID"),
        (b'{"schemaVersion": 1}', "MANIFEST_INVALID"),
        (b'{"schemaVersion": 2, "config": {"digest": "nonsense"}, "layers": []}', "MANIFEST_INVALID"),
        (b'{"schemaVersion": 2, "config": {"digest": "sha256:' + b"0" * 64 + b'"}}', "MANIFEST_BLOB_UNKNOWN"),
        (b'{"schemaVersion": 2, "manifests": [], "layers": []}', "MANIFEST_INVALID"),
        (b"[" * 100_000, "MANIFEST_INVALID"),
        (b" " * (5 << 20), "SIZE_INVALID"),
    ],
)
def test_manifests_that_are_none_are_refused(api: Api, data: bytes, expected: str) -> None:
    put = api.ask("PUT", "/v2/refused/manifests/v1", data, Content_Type=OCI_MANIFEST)
    assert code(put) == expected
    assert api.ask("GET", "/v2/refused/manifests/v1").status == 404


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2/UPPER/manifests/v1", "NAME_INVALID"),
        ("POST", "/v2/a//b/blobs/uploads/", "NAME_INVALID"),
        ("GET", "/v2/a/blobs/sha256:short", "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/..%2f..%2fregistry.db", "UNSUPPORTED"),
        ("PATCH", "/v2/a/blobs/uploads/..%2fx", "UNSUPPORTED"),
        ("PATCH", "/v2/a/blobs/uploads/nosuch", "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/a/manifests/v1", "UNSUPPORTED"),
        ("GET", "/v2/a/tags/list?n=many", "PAGINATION_NUMBER_INVALID"),
    ],
)
def test_requests_that_make_no_sense_are_refused(api: Api, method: str, path: str, expected: str) -> None:
    answer = api.ask(method, path)
    assert 400 <= answer.status < 500
    assert code(answer) == expected


def test_tags_page_by_page(api: Api) -> None:
    for tag in ("b", "a", "c", "B"):
        api.manifest("paged", tag)
    assert json.loads(api.ask("GET", "/v2/paged/tags/list").data) == {"name": "paged", "tags": ["B", "a", "b", "c"]}
    first = api.ask("GET", "/v2/paged/tags/list?n=3")
    assert json.loads(first.data)["tags"] == ["B", "a", "b"]
    path = first.headers["Link"].partition(">")[0].removeprefix("<")
    second = api.ask("GET", path)
    assert json.loads(second.data)["tags"] == ["c"]
    assert "Link" not in second.headers
    assert json.loads(api.ask("GET", "/v2/paged/tags/list?n=0").data)["tags"] == []
    assert "paged" in json.loads(api.ask("GET", "/v2/_catalog").data)["repositories"]


def test_referrers_with_their_types(api: Api) -> None:
    name, data = api.manifest("referred", "v1")
    subject = {"mediaType": OCI_MANIFEST, "digest": name, "size": len(data)}
    config, layer = api.upload("referred", b"{}"), api.upload("referred", b"layer of referred")
    for kind in ("signature", "sbom"):
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": f"application/{kind}",
            "config": {**EMPTY, "digest": config},
            "layers": [{"mediaType": "text/plain", "digest": layer, "size": 1}],
            "subject": subject,
            "annotations": {"of": kind},
        }
        body = json.dumps(document).encode()
        put = api.ask("PUT", f"/v2/referred/manifests/{digest(body)}", body, Content_Type=OCI_MANIFEST)
        assert (put.status, put.headers["OCI-Subject"]) == (201, name)
    found = api.ask("GET", f"/v2/referred/referrers/{name}")
    assert found.headers["Content-Type"] == OCI_INDEX
    entries = json.loads(found.data)["manifests"]
    assert sorted(entry["annotations"]["of"] for entry in entries) == ["sbom", "signature"]
    filtered = api.ask("GET", f"/v2/referred/referrers/{name}?artifactType=application/sbom")
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert [entry["artifactType"] for entry in json.loads(filtered.data)["manifests"]] == ["application/sbom"]
    none = api.ask("GET", f"/v2/referred/referrers/{digest(b'nothing')}")
    assert (none.status, json.loads(none.data)["manifests"]) == (200, [])


def test_an_index_needs_its_manifests(api: Api) -> None:
    name, data = api.manifest("indexed", "amd64")
    entry = {"mediaType": OCI_MANIFEST, "digest": name, "size": len(data)}
    good = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    bad = json.dumps({"schemaVersion": 2, "manifests": [{**entry, "digest": digest(b"no")}]}).encode()
    assert api.ask("PUT", "/v2/indexed/manifests/all", good, Content_Type=OCI_INDEX).status == 201
    assert code(api.ask("PUT", "/v2/indexed/manifests/bad", bad, Content_Type=OCI_INDEX)) == "MANIFEST_BLOB_UNKNOWN"


def test_tags_manifests_and_blobs_are_deleted(api: Api) -> None:
    name, _ = api.manifest("deleted", "one")
    api.ask(
        "PUT", "/v2/deleted/manifests/two", api.ask("GET", "/v2/deleted/manifests/one").data, Content_Type=OCI_MANIFEST
    )
    assert api.ask("DELETE", "/v2/deleted/manifests/one").status == 202
    assert json.loads(api.ask("GET", "/v2/deleted/tags/list").data)["tags"] == ["two"]
    assert api.ask("DELETE", f"/v2/deleted/manifests/{name}").status == 202
    assert json.loads(api.ask("GET", "/v2/deleted/tags/list").data)["tags"] == []
    assert api.ask("DELETE", f"/v2/deleted/manifests/{name}").status == 404
    blob = digest(b"layer of deleted")
    assert api.ask("DELETE", f"/v2/deleted/blobs/{blob}").status == 202
    assert api.ask("GET", f"/v2/deleted/blobs/{blob}").status == 404
    assert code(api.ask("DELETE", f"/v2/deleted/blobs/{blob}")) == "BLOB_UNKNOWN"


def test_metrics_tell_of_requests(api: Api) -> None:
    api.upload("metered", b"x" * 1000)
    text = api.ask("GET", "/metrics").data.decode()
    assert 'lamina_registry_requests_total{kind="uploads",method="PUT",status="201"}' in text
    assert "lamina_registry_blob_bytes_total" in text
    assert "\nlamina_registry_blob " in text


def test_who_may_do_what(tmp_path: Path) -> None:
    passwords = tmp_path / "htpasswd"
    passwords.write_text(htpasswd_line())
    pair = base64.b64encode(f"{registries.USER}:{registries.PASSWORD}".encode()).decode()
    with serving_own(tmp_path / "guarded", "--htpasswd", str(passwords), "--anonymous", "pull") as guarded:
        known, nobody = Api(guarded.host, f"Basic {pair}"), Api(guarded.host)
        known.manifest("kept", "v1")
        assert nobody.ask("GET", "/v2/kept/manifests/v1").status == 200
        refused = nobody.ask("POST", "/v2/kept/blobs/uploads/")
        assert (refused.status, code(refused)) == (401, "UNAUTHORIZED")
        assert refused.headers["WWW-Authenticate"].startswith("Bearer ")  # by which docker's clients can be both
        wrong = Api(guarded.host, "Basic " + base64.b64encode(b"somebody:wrong").decode())
        assert wrong.ask("GET", "/v2/kept/manifests/v1").status == 401
        passwords.write_text("")
        os.utime(passwords, ns=(1, 1))
        assert known.ask("POST", "/v2/kept/blobs/uploads/").status == 401
    with serving_own(tmp_path / "closed", "--htpasswd", str(passwords)) as closed:
        refused = Api(closed.host).ask("GET", "/v2/")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="lamina registry"')
        assert Api(closed.host).ask("GET", "/metrics").status == 401


@pytest.fixture
def ruled(tmp_path: Path) -> Iterator[OwnRegistry]:
    """A registry with tokens, where somebody may do everything with team/**, nobody may pull public/**, and that is all."""
    (tmp_path / "htpasswd").write_text(htpasswd_line())
    (tmp_path / "rules.toml").write_text(
        f'[[rule]]\nusers = ["{registries.USER}"]\nrepositories = ["team/**", "public/*"]\n'
        'actions = ["pull", "push", "delete"]\n'
        '[[rule]]\nusers = ["anonymous", "*"]\nrepositories = ["public/**"]\nactions = ["pull"]\n'
    )
    options = ["--htpasswd", f"{tmp_path}/htpasswd", "--rules", f"{tmp_path}/rules.toml", "--tokens"]
    with serving_own(tmp_path / "ruled", *options, "--audit", f"{tmp_path}/audit") as made:
        yield made


def test_rules_and_tokens_of_its_own(ruled: OwnRegistry, daemon: Daemon, context: Path, tmp_path: Path) -> None:
    """By docker's command line, skopeo and raw requests: who may, may; a refresh token stands for a password."""
    env = {"DOCKER_CONFIG": str(tmp_path / "config")}
    login = daemon.docker("login", "-u", registries.USER, "-p", registries.PASSWORD, ruled.host, env=env)
    assert login.code == 0, login.err
    assert json.loads((tmp_path / "config" / "config.json").read_text())["auths"][ruled.host]["identitytoken"]
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo ruled > /text\n")
    for name, allowed in (("team/deep/app:1", True), ("public/app:1", True), ("other/app:1", False)):
        daemon.docker_ok("build", "-q", "-t", f"{ruled.host}/{name}", context)
        pushed = daemon.docker("push", f"{ruled.host}/{name}", env=env)
        assert (pushed.code == 0) is allowed, pushed.err
    daemon.docker_ok("rmi", f"{ruled.host}/team/deep/app:1", f"{ruled.host}/public/app:1")
    assert daemon.docker("pull", f"{ruled.host}/team/deep/app:1").code == 1
    assert daemon.docker("pull", f"{ruled.host}/public/app:1").code == 0
    assert daemon.docker("pull", f"{ruled.host}/team/deep/app:1", env=env).code == 0
    argv = ["skopeo", "inspect", "--tls-verify=false", f"--creds={registries.USER}:{registries.PASSWORD}"]
    subprocess.run([*argv, f"docker://{ruled.host}/team/deep/app:1"], check=True, capture_output=True)
    nobody = Api(ruled.host)
    refused = nobody.ask("GET", "/v2/team/deep/app/manifests/1")
    assert refused.headers["WWW-Authenticate"] == (
        f'Bearer realm="http://{ruled.host}/token",service="lamina-registry",scope="repository:team/deep/app:pull"'
    )
    given = json.loads(
        nobody.ask("GET", "/token?scope=repository:team/deep/app:pull&scope=repository:public/app:pull").data
    )
    bearer = Api(ruled.host, f"Bearer {given['token']}")
    assert bearer.ask("GET", "/v2/public/app/manifests/1").status == 200
    assert bearer.ask("GET", "/v2/team/deep/app/manifests/1").status == 401
    forged = Api(ruled.host, f"Bearer {given['token'][:-4]}AAAA")
    assert forged.ask("GET", "/v2/public/app/manifests/1").status == 401
    assert json.loads(bearer.ask("GET", "/v2/_catalog").data) == {"repositories": ["public/app"]}
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert any(line["user"] == registries.USER and line["what"] == "manifests/1" for line in lines)
    assert any(line["status"] == 401 and line["repository"] == "team/deep/app" for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nonsense", "Expected"),
        ('[[rule]]\nusers = ["a"]\n', "rule 1 must have users, repositories and actions"),
        ('[[rule]]\nusers = ["a"]\nrepositories = ["b"]\nactions = ["read"]\n', "unknown action 'read'"),
        ("[rules]\nx = 1\n", "only [[rule]] may stand there, not rules"),
    ],
)
def test_rules_that_make_no_sense_are_named(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "rules").write_text(text)
    argv = [
        registries.LAMINA,
        "registry",
        "serve",
        "--root",
        str(tmp_path / "root"),
        "--rules",
        str(tmp_path / "rules"),
    ]
    done = subprocess.run([*argv, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert expected in done.stderr


def test_who_asks_too_often_has_to_wait(tmp_path: Path) -> None:
    with serving_own(tmp_path / "limited", "--rate-limit", "30") as limited:
        statuses = [Api(limited.host).ask("GET", "/v2/") for _ in range(40)]
        assert [answer.status for answer in statuses].count(429) >= 5
        last = statuses[-1]
        assert (code(last), int(last.headers["Retry-After"]) >= 1) == ("TOOMANYREQUESTS", True)


def test_tls_serves_large_blobs(tmp_path: Path) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*argv, "-keyout", f"{tmp_path}/key", "-out", f"{tmp_path}/cert"], check=True, capture_output=True)
    with serving_own(tmp_path / "tls", "--tls-cert", f"{tmp_path}/cert", "--tls-key", f"{tmp_path}/key") as secure:
        data = os.urandom(6_000_000)
        pool = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname=False, retries=False)
        urllib3.disable_warnings()
        url = f"https://{secure.host}/v2/tls/blobs"
        assert pool.request("POST", f"{url}/uploads/?digest={digest(data)}", body=data).status == 201
        assert pool.request("GET", f"{url}/{digest(data)}").data == data


def test_several_processes_share_one_storage(tmp_path: Path) -> None:
    with serving_own(tmp_path / "shared", "--processes", "3") as shared:
        place = Api(shared.host).ask("POST", "/v2/shared/blobs/uploads/").headers["Location"]
        for number in range(10):
            sent = Api(shared.host).ask("PATCH", place, bytes([number]), Content_Range=f"{number}-{number}")
            assert sent.status == 202, sent.data
        name = digest(bytes(range(10)))
        assert Api(shared.host).ask("PUT", f"{place}?digest={name}").status == 201
        for _ in range(10):
            assert Api(shared.host).ask("GET", f"/v2/shared/blobs/{name}").data == bytes(range(10))
        assert shared.process is not None
        children = Path(f"/proc/{shared.process.pid}/task/{shared.process.pid}/children").read_text().split()
        assert len(children) == 2
        shared.kill()
        registries_ended = [pid for pid in children if _ends(pid)]
        assert registries_ended == children


def _ends(pid: str) -> bool:
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "a process outlives the first one")
    return True


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_images_go_and_come(daemon: Daemon, own: OwnRegistry, context: Path, cli: str) -> None:
    command = daemon.docker_ok if cli == "docker" else daemon.lamina_ok
    name = f"{own.host}/images/{cli}:1"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN echo {cli} > /text\n")
    daemon.docker_ok("build", "-q", "-t", name, context)
    command("push", name)
    daemon.docker_ok("rmi", name)
    command("pull", name)
    assert daemon.docker_ok("run", "--rm", "--network", "none", name, "cat", "/text") == cli
    assert name.partition(":1")[0] in daemon.docker_ok("search", f"{own.host}/images")


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_skopeo_and_podman_are_served(
    daemon: Daemon, own: OwnRegistry, tmp_path: Path, form: str, podman_root: Path
) -> None:
    daemon.docker_ok("save", "-o", tmp_path / "busybox.tar", "busybox")
    name = f"{own.host}/skopeo/{form}:1"
    argv = ["skopeo", "copy", "--dest-tls-verify=false", f"--format={form}", f"docker-archive:{tmp_path}/busybox.tar"]
    subprocess.run([*argv, f"docker://{name}"], check=True, capture_output=True)
    tags = subprocess.run(
        ["skopeo", "list-tags", "--tls-verify=false", f"docker://{own.host}/skopeo/{form}"],
        check=True,
        capture_output=True,
    )
    assert json.loads(tags.stdout)["Tags"] == ["1"]
    podman = ["podman", "--root", f"{podman_root}/root", "--runroot", f"{podman_root}/run", "--storage-driver", "vfs"]
    subprocess.run([*podman, "pull", "-q", "--tls-verify=false", name], check=True, capture_output=True)
    subprocess.run([*podman, "tag", name, f"{name}-podman"], check=True, capture_output=True)
    subprocess.run([*podman, "push", "-q", "--tls-verify=false", f"{name}-podman"], check=True, capture_output=True)
    daemon.docker_ok("pull", f"{name}-podman")
    assert daemon.docker_ok("run", "--rm", "--network", "none", f"{name}-podman", "echo", "served") == "served"
    daemon.docker_ok("rmi", f"{name}-podman")  # it is the session's busybox by another name
    subprocess.run(["skopeo", "delete", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True)


def tidied(own: OwnRegistry, *options: str) -> list[str]:
    """What one round of maintenance says."""
    argv = [registries.LAMINA, "registry", "serve", "--root", str(own.root), "--garbage-collect", *options]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def test_policies_keep_the_newest_tags(tmp_path: Path) -> None:
    (tmp_path / "policies").write_text(
        '[[policy]]\nrepositories = ["ci/**"]\ntags = ["pr-*"]\nkeep_last = 2\nremove_untagged = true\n'
        '[[policy]]\nrepositories = ["old/*"]\nkeep_days = 1\n'
    )
    options = ("--policies", f"{tmp_path}/policies")
    with serving_own(tmp_path / "own", "--collect-every", "0") as own:
        api = Api(own.host)
        for number in range(5):
            api.manifest("ci/app", f"pr-{number}", annotations={"number": str(number)})
        for repository in ("ci/app", "old/app", "other/app"):
            api.manifest(repository, "release")
        would = tidied(own, *options, "--dry-run")
        assert [line.split()[2] for line in would[:-1]] == ["ci/app:pr-2", "ci/app:pr-1", "ci/app:pr-0"]
        assert len(json.loads(api.ask("GET", "/v2/ci/app/tags/list").data)["tags"]) == 6
        tidied(own, *options)
        kept = json.loads(api.ask("GET", "/v2/ci/app/tags/list").data)["tags"]
        assert kept == ["pr-3", "pr-4", "release"]
        assert json.loads(api.ask("GET", "/v2/old/app/tags/list").data)["tags"] == ["release"]


def test_a_repository_holds_no_more_than_its_quota(tmp_path: Path) -> None:
    (tmp_path / "policies").write_text('[[policy]]\nrepositories = ["small/*"]\nquota = 1000\n')
    with serving_own(tmp_path / "own", "--policies", f"{tmp_path}/policies") as own:
        api = Api(own.host)
        api.upload("small/app", b"a" * 600)
        api.upload("large/app", b"b" * 600)
        data = b"c" * 600
        refused = api.ask("POST", f"/v2/small/app/blobs/uploads/?digest={digest(data)}", data)
        assert (refused.status, code(refused)) == (403, "DENIED")
        assert api.ask("HEAD", f"/v2/small/app/blobs/{digest(data)}").status == 404
        mount = f"/v2/small/app/blobs/uploads/?mount={digest(b'b' * 600)}&from=large/app"
        assert api.ask("POST", mount).status == 403
        api.upload("small/app", b"d" * 300)
        assert list((own.root / "uploads").iterdir()) == []


def test_a_damaged_blob_is_found_set_aside_and_pushed_again(tmp_path: Path) -> None:
    with serving_own(tmp_path / "own", "--collect-every", "0", "--scrub-every", "0.2", "--scrub-speed", "0") as own:
        api = Api(own.host)
        name = api.upload("scrubbed", b"sound bytes")
        api.upload("scrubbed", b"others")
        path = own.root / "blobs" / "sha256" / name[7:9] / name[7:]
        path.write_bytes(b"other bytes")
        wait_until(lambda: api.ask("HEAD", f"/v2/scrubbed/blobs/{name}").status == 404, "the damage is not found")
        assert f"blob {name} is damaged" in own.log
        api.upload("scrubbed", b"sound bytes")
        assert api.ask("GET", f"/v2/scrubbed/blobs/{name}").data == b"sound bytes"
        assert tidied(own, "--scrub")[0] == "hashed 2 blobs, 0 damaged"


def test_policies_that_make_no_sense_are_named(tmp_path: Path) -> None:
    for text, expected in (
        ("[[policy]]\nkeep_last = 1\n", "policy 1 names no repositories"),
        ('[[policy]]\nrepositories = ["a"]\nkeep_first = 1\n', "unknown key 'keep_first'"),
        ('[[policy]]\nrepositories = ["a"]\nkeep_last = true\n', "keep_last cannot be True"),
    ):
        (tmp_path / "policies").write_text(text)
        argv = [registries.LAMINA, "registry", "serve", "--root", f"{tmp_path}/root", "--listen", "127.0.0.1:0"]
        done = subprocess.run(
            [*argv, "--policies", f"{tmp_path}/policies"], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 1
        assert expected in done.stderr


def test_what_is_another_registry_s_is_fetched_kept_and_served_while_that_is_down(
    daemon: Daemon, context: Path, tmp_path: Path
) -> None:
    """By docker's command line, and by containerd's way to name the registry."""
    with registries.serving(tmp_path / "upstream") as upstream, troubled(upstream.host) as way:
        options = ["--upstream", f"hub={way.host}", "--fresh", "0"]
        with serving_own(tmp_path / "own", *options) as own:
            (context / "Dockerfile").write_text("FROM busybox\nRUN echo mirrored > /text\n")
            daemon.docker_ok("build", "-q", "-t", f"{upstream.host}/lib/app:1", context)
            daemon.docker_ok("push", f"{upstream.host}/lib/app:1")
            daemon.docker_ok("rmi", f"{upstream.host}/lib/app:1")
            name = f"{own.host}/hub/lib/app:1"
            daemon.docker_ok("pull", name)
            assert daemon.docker_ok("run", "--rm", "--network", "none", name, "cat", "/text") == "mirrored"
            api = Api(own.host)
            by_ns = api.ask("GET", f"/v2/lib/app/manifests/1?ns={way.host}")
            assert by_ns.status == 200
            layers = [layer["digest"] for layer in json.loads(by_ns.data)["layers"]]
            for layer in layers:
                assert api.ask("GET", f"/v2/hub/lib/app/blobs/{layer}").status == 200
            first = way.blob_bytes()
            for layer in layers:
                assert api.ask("GET", f"/v2/hub/lib/app/blobs/{layer}").status == 200
            assert way.blob_bytes() == first > 0
            assert code(api.ask("GET", "/v2/hub/lib/app/manifests/2")) == "MANIFEST_UNKNOWN"
            way.trouble = lambda method, path: Trouble(status=404)
            assert api.ask("GET", "/v2/hub/lib/app/manifests/1").status == 404  # it is gone there
            way.trouble = lambda method, path: Trouble(status=403)
            assert api.ask("GET", "/v2/hub/lib/app/manifests/1").data == by_ns.data
            assert api.ask("GET", "/v2/hub/lib/app/manifests/3").status == 502
            way.trouble = lambda method, path: None
            _, pushed = api.manifest("hub/lib/app", "own")
            assert api.ask("GET", "/v2/hub/lib/app/manifests/own").data == pushed


def test_bytes_of_an_upstream_that_are_wrong_are_nobody_s(tmp_path: Path) -> None:
    with registries.serving(tmp_path / "upstream") as upstream, troubled(upstream.host) as way:
        data = os.urandom(3_000_000)
        Api(upstream.host).upload("app", data)
        with serving_own(tmp_path / "own", "--upstream", f"={way.host}") as own:
            api = Api(own.host)
            way.trouble = lambda method, path: Trouble(corrupt_at=1000) if method == "GET" else None
            with pytest.raises(urllib3.exceptions.HTTPError):
                api.ask("GET", f"/v2/app/blobs/{digest(data)}")
            assert own.blobs() == set()
            assert list((own.root / "uploads").iterdir()) == []
            way.trouble = lambda method, path: None
            assert api.ask("HEAD", f"/v2/app/blobs/{digest(data)}").headers["Content-Length"] == "3000000"
            assert api.ask("GET", f"/v2/app/blobs/{digest(data)}").data == data
            assert own.blobs() == {digest(data)[7:]}
            path = own.root / "blobs" / "sha256" / digest(data)[7:9] / digest(data)[7:]
            path.write_bytes(b"damaged")
            assert "1 damaged" in tidied(own, "--scrub")[1]
            assert own.blobs() == set()
            assert api.ask("GET", f"/v2/app/blobs/{digest(data)}").data == data
            wait_until(lambda: own.blobs() == {digest(data)[7:]}, "it is not stored again")


def test_others_are_told_of_pushes_and_removals(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fails = not told and not getattr(self.server, "has_failed", False)
            self.server.has_failed = True  # type: ignore[attr-defined]
            if not fails:
                told.extend(json.loads(body)["events"])
            self.send_response(500 if fails else 200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Nothing is printed."""

    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.server_address[1]}/events"
        with serving_own(tmp_path / "own", "--webhook", url) as own:
            api = Api(own.host)
            name, data = api.manifest("told", "v1")
            assert api.ask("DELETE", "/v2/told/manifests/v1").status == 202
            wait_until(lambda: len(told) == 2, "nobody is told")
        listener.shutdown()
    assert [event["action"] for event in told] == ["push", "delete"]
    assert told[0]["target"] == {
        "mediaType": OCI_MANIFEST,
        "digest": name,
        "size": len(data),
        "length": len(data),
        "repository": "told",
        "tag": "v1",
    }


def test_a_daemon_runs_one_beside_it(needs_root: None, busybox_tar: Path, tmp_path: Path, context: Path) -> None:
    """It takes pushes, comes back when it is killed, with what it had, and ends with the daemon, also with a killed one."""
    host = f"127.0.0.1:{registries.free_port()}"
    options = ("--serve-registry", host, "--registry-option=--audit " + str(tmp_path / "audit"))
    with serving(tmp_path / "daemon", busybox_tar, options) as own:

        def pid() -> str:
            found = [
                path.parent.name
                for path in Path("/proc").glob("[0-9]*/cmdline")
                if host.encode() in path.read_bytes() and b"registry_server" in path.read_bytes()
            ]
            return found[0] if found else ""

        wait_until(lambda: _is_up(host), "no registry answers")
        own.docker_ok("tag", "busybox", f"{host}/bb:1")
        own.docker_ok("push", f"{host}/bb:1")
        first = pid()
        os.kill(int(first), signal.SIGKILL)
        wait_until(lambda: pid() not in ("", first) and _is_up(host), "it does not come back")
        assert Api(host).ask("GET", "/v2/bb/manifests/1").status == 200
        assert (tmp_path / "audit").exists()
        own.kill()
        wait_until(lambda: not pid(), "it outlives its daemon")


def _is_up(host: str) -> bool:
    try:
        return Api(host).ask("GET", "/v2/").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_docker_may_pull_without_a_name_and_push_with_one(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(htpasswd_line())
    env = {"DOCKER_CONFIG": str(tmp_path / "config")}
    options = ("--htpasswd", f"{tmp_path}/htpasswd", "--anonymous", "pull")
    with serving_own(tmp_path / "own", *options) as own:
        name = f"{own.host}/shown/to/all:1"
        daemon.docker_ok("tag", "busybox", name)
        assert daemon.docker("push", name).code == 1
        assert daemon.docker("login", "-u", registries.USER, "-p", "wrong", own.host, env=env).code == 1
        assert daemon.docker("login", "-u", registries.USER, "-p", registries.PASSWORD, own.host, env=env).code == 0
        assert daemon.docker("push", name, env=env).code == 0
        daemon.docker_ok("rmi", name)
        daemon.docker_ok("pull", name)
        daemon.docker_ok("rmi", name)
        anonymous = json.loads(Api(own.host).ask("GET", "/token").data)["token"]
        assert Api(own.host, f"Bearer {anonymous}").ask("GET", "/metrics").status == 401
        refresh = json.loads((tmp_path / "config" / "config.json").read_text())["auths"][own.host]["identitytoken"]
        form = urlencode({"grant_type": "refresh_token", "refresh_token": refresh, "service": "x"})
        assert Api(own.host).ask("POST", "/token", form).status == 200
        (tmp_path / "htpasswd").write_text(htpasswd_line())  # another salt: another password, as far as anyone can tell
        assert Api(own.host).ask("POST", "/token", form).status == 401


def test_nobody_adds_to_an_upload_that_is_being_finished(api: Api, own: OwnRegistry) -> None:
    """However requests fall, a blob that is stored is what its digest says."""
    for number in range(12):
        data = os.urandom(3_000_000)
        place = api.ask("POST", "/v2/raced/blobs/uploads/").headers["Location"]
        api.ask("PATCH", place, data)
        with ThreadPoolExecutor(3) as pool:
            finishing = pool.submit(Api(own.host).ask, "PUT", f"{place}?digest={digest(data, 'sha512')}")
            adding = [pool.submit(Api(own.host).ask, "PATCH", place, b"more") for _ in range(2)]
            answers = [finishing.result().status, *(added.result().status for added in adding)]
        got = api.ask("GET", f"/v2/raced/blobs/{digest(data, 'sha512')}")
        assert got.status == (200 if answers[0] == 201 else 404), (number, answers)
        if got.status == 200:
            assert got.data == data
    for path in own.root.glob("blobs/sha512/*/*"):
        assert hashlib.sha512(path.read_bytes()).hexdigest() == path.name


def test_a_blob_whose_file_is_lost_is_not_mounted_and_needed(api: Api, own: OwnRegistry) -> None:
    name = api.upload("lost/from", b"lost bytes")
    (own.root / "blobs" / "sha256" / name[7:9] / name[7:]).unlink()
    assert api.ask("POST", f"/v2/lost/to/blobs/uploads/?mount={name}&from=lost/from").status == 202
    config = {**EMPTY, "digest": name}
    document = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}).encode()
    put = api.ask("PUT", "/v2/lost/from/manifests/v1", document, Content_Type=OCI_MANIFEST)
    assert code(put) == "MANIFEST_BLOB_UNKNOWN"
    api.upload("lost/from", b"lost bytes")
    assert api.ask("PUT", "/v2/lost/from/manifests/v1", document, Content_Type=OCI_MANIFEST).status == 201


def test_a_blob_that_is_too_large_keeps_no_place(tmp_path: Path) -> None:
    with serving_own(tmp_path / "own", "--max-blob-size", "1000") as own:
        api = Api(own.host)
        data = b"x" * 2000
        refused = api.ask("POST", f"/v2/large/blobs/uploads/?digest={digest(data)}", data)
        assert (refused.status, code(refused)) == (413, "SIZE_INVALID")
        assert list((own.root / "uploads").iterdir()) == []


def test_what_a_client_pushes_is_not_overwritten_by_an_upstream(tmp_path: Path) -> None:
    with registries.serving(tmp_path / "upstream") as upstream, troubled(upstream.host) as way:
        Api(upstream.host).manifest("app", "v1")
        with serving_own(tmp_path / "own", "--upstream", f"={way.host}", "--fresh", "0") as own:
            api = Api(own.host)
            way.trouble = lambda method, path: Trouble(delay_s=1.0) if method == "GET" and "manifests" in path else None
            with ThreadPoolExecutor(1) as pool:
                fetching = pool.submit(Api(own.host).ask, "GET", "/v2/app/manifests/v1", Accept="*/*")
                time.sleep(0.3)
                _, pushed = api.manifest("app", "v1", annotations={"pushed": "here"})
                assert fetching.result().status == 200
            way.trouble = lambda method, path: None
            assert api.ask("GET", "/v2/app/manifests/v1").data == pushed
