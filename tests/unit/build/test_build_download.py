"""Downloads: a file behind a URL comes whole and checked, or not at all; what did not change is not sent again."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.build.remote.credentials import git_authorization, http_authorization
from lamina.build.remote.download import DownloadLimits, DownloadStore
from lamina.build.remote.transfer import (
    ChecksumMismatch,
    DownloadFailed,
    DownloadRefused,
    DownloadTooLarge,
    InvalidUrl,
    Transfer,
    proxy_for,
    safe_file_name,
    transfer,
)
from lamina.oci.digest import Digest
from unit.build.http_server import Answer, Asked, Site, serve

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
DATE_NS = 1_445_412_480 * 10**9
NO_PROXIES: dict[str, str] = {}


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> DownloadStore:
    return open_store(tmp_path)


def open_store(tmp_path: Path, limits: DownloadLimits | None = None) -> DownloadStore:
    store = DownloadStore(tmp_path / "store", limits)
    store.open()
    return store


def files_of(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "store" / "files").iterdir())


def name_of(tmp_path: Path, url: str) -> str:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        transferred = transfer(Transfer(url), fd)
    finally:
        os.close(fd)
    assert transferred is not None
    return transferred.name


async def test_a_download_has_the_servers_bytes_name_and_time(store: DownloadStore, site: Site) -> None:
    data = os.urandom(3_000_000)
    site.answers["/dir/a%20file.bin?x=1"] = Answer(data, headers={"Last-Modified": DATE})
    downloaded = await store.fetch(site.url("/dir/a file.bin?x=1#ignored"))
    assert downloaded.path.read_bytes() == data
    assert downloaded.name == "a file.bin"
    assert downloaded.digest == Digest.of(data)
    assert downloaded.size_bytes == len(data)
    assert downloaded.mtime_ns == downloaded.path.stat().st_mtime_ns == DATE_NS
    assert stat.S_IMODE(downloaded.path.stat().st_mode) == 0o600


async def test_a_server_that_tells_no_time_gives_the_epoch(store: DownloadStore, site: Site) -> None:
    site.answers["/a"] = Answer(b"a")
    site.answers["/b"] = Answer(b"b", headers={"Last-Modified": "some day"})
    assert (await store.fetch(site.url("/a"))).mtime_ns == 0
    assert (await store.fetch(site.url("/b"))).mtime_ns == 0


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        ("/a/b.txt", "", "b.txt"),
        ("/a/b.txt", 'attachment; filename="other"', "b.txt"),
        ("/a/dir/", "", "dir"),
        ("/", 'attachment; filename="told.txt"', "told.txt"),
        ("/", "attachment; filename*=UTF-8''%e2%82%ac.txt", "€.txt"),
        ("/", 'attachment; filename="../../etc/passwd"', "passwd"),
        ("/", "", "__unnamed__"),
        ("/a/%2e%2e", "", "download"),
        ("/a/x%00y", "", "download"),
    ],
)
def test_the_name_is_the_paths_last_part_else_what_the_server_tells(
    tmp_path: Path, site: Site, path: str, disposition: str, name: str
) -> None:
    site.answers[path] = Answer(b"x", headers={"Content-Disposition": disposition} if disposition else {})
    assert name_of(tmp_path, site.url(path)) == name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("foo.txt", "foo.txt"),
        ("資料.txt", "資料.txt"),
        ("  foo.txt  ", "foo.txt"),
        ("a/b/c.txt", "c.txt"),
        ("..\\", "..\\"),
    ]
    + [(bad, "download") for bad in ("", ".", "..", "../", "a\x00b", "a\nb", "x" * 256)],
)
def test_a_file_name_is_safe(name: str, safe: str) -> None:
    assert safe_file_name(name) == safe


async def test_what_did_not_change_is_not_sent_again(store: DownloadStore, site: Site) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.headers["If-None-Match"] == '"v1"':
            return Answer(status=304)
        return Answer(b"bytes", headers={"ETag": '"v1"', "Last-Modified": DATE})

    site.answers["/f"] = answer
    first = await store.fetch(site.url("/f"))
    assert await store.fetch(site.url("/f")) == first
    assert [a.headers["If-None-Match"] for a in site.asked] == [None, '"v1"']
    assert site.asked[1].headers["If-Modified-Since"] == DATE


async def test_what_is_known_outlives_the_daemon(tmp_path: Path, site: Site) -> None:
    site.answers["/f"] = lambda asked: (
        Answer(status=304) if asked.headers["If-Modified-Since"] else Answer(b"x", headers={"Last-Modified": DATE})
    )
    first = await open_store(tmp_path).fetch(site.url("/f"))
    assert await open_store(tmp_path).fetch(site.url("/f")) == first


async def test_a_server_that_ignores_the_condition_but_repeats_the_tag_is_not_read(
    store: DownloadStore, site: Site
) -> None:
    site.answers["/f"] = Answer(b"first", headers={"ETag": '"v1"'})
    first = await store.fetch(site.url("/f"))
    site.answers["/f"] = Answer(b"other", headers={"ETag": 'W/"v1"'})
    assert await store.fetch(site.url("/f")) == first


async def test_what_changed_is_sent_again(store: DownloadStore, site: Site) -> None:
    site.answers["/f"] = Answer(b"first", headers={"ETag": '"v1"'})
    await store.fetch(site.url("/f"))
    site.answers["/f"] = Answer(b"second", headers={"ETag": '"v2"'})
    assert (await store.fetch(site.url("/f"))).path.read_bytes() == b"second"


async def test_a_kept_file_that_is_damaged_is_sent_again(store: DownloadStore, site: Site) -> None:
    site.answers["/f"] = lambda asked: (
        Answer(status=304) if asked.headers["If-None-Match"] else Answer(b"bytes", headers={"ETag": '"v1"'})
    )
    (await store.fetch(site.url("/f"))).path.write_bytes(b"")
    assert (await store.fetch(site.url("/f"))).path.read_bytes() == b"bytes"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_checksum_is_verified(store: DownloadStore, site: Site, tmp_path: Path, algorithm: str) -> None:
    site.answers["/f"] = Answer(b"bytes", headers={"ETag": '"v1"'})
    right = Digest(f"{algorithm}:{hashlib.new(algorithm, b'bytes').hexdigest()}")
    wrong = Digest(f"{algorithm}:{hashlib.new(algorithm, b'other').hexdigest()}")
    with pytest.raises(ChecksumMismatch, match=rf"digest mismatch for .*: {right} \(expected: {wrong}\)"):
        await store.fetch(site.url("/f"), checksum=wrong)
    assert files_of(tmp_path) == []
    assert (await store.fetch(site.url("/f"), checksum=right)).path.read_bytes() == b"bytes"


async def test_under_a_checksum_that_is_there_nobody_is_asked(store: DownloadStore, site: Site) -> None:
    site.answers["/f"] = Answer(b"bytes")
    first = await store.fetch(site.url("/f"))
    assert await store.fetch(site.url("/f"), checksum=first.digest) == first
    assert len(site.asked) == 1


async def test_a_checksum_that_the_kept_file_has_not_asks_for_new_bytes(store: DownloadStore, site: Site) -> None:
    site.answers["/f"] = Answer(b"old", headers={"ETag": '"v"'})
    await store.fetch(site.url("/f"))
    site.answers["/f"] = Answer(b"new", headers={"ETag": '"v"'})
    assert (await store.fetch(site.url("/f"), checksum=Digest.of(b"new"))).path.read_bytes() == b"new"


async def test_redirects_are_followed_and_the_name_stays_the_urls(store: DownloadStore, site: Site) -> None:
    site.answers["/file"] = Answer(status=302, headers={"Location": "/hop"})
    site.answers["/hop"] = Answer(status=308, headers={"Location": site.url("/end/other", "localhost")})
    site.answers["/end/other"] = Answer(b"here")
    downloaded = await store.fetch(site.url("/file"))
    assert (downloaded.name, downloaded.path.read_bytes()) == ("file", b"here")


async def test_redirects_in_a_circle_end(store: DownloadStore, site: Site) -> None:
    site.answers["/f"] = Answer(status=301, headers={"Location": "/f"})
    with pytest.raises(DownloadFailed, match="stopped after 10 redirects"):
        await store.fetch(site.url("/f"))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
async def test_a_redirect_leads_to_http_only(store: DownloadStore, site: Site, target: str) -> None:
    site.answers["/f"] = Answer(status=302, headers={"Location": target})
    with pytest.raises(InvalidUrl):
        await store.fetch(site.url("/f"))


async def test_credentials_are_sent_to_their_own_host_alone(store: DownloadStore, site: Site) -> None:
    site.answers["/f"] = Answer(status=302, headers={"Location": "/same"})
    site.answers["/same"] = Answer(status=302, headers={"Location": site.url("/other", "localhost")})
    site.answers["/other"] = Answer(b"x")
    await store.fetch(site.url("/f"), authorization="Bearer secret")
    assert [a.headers["Authorization"] for a in site.asked] == ["Bearer secret", "Bearer secret", None]


async def test_a_name_and_password_in_the_url_are_sent_and_not_shown(store: DownloadStore, site: Site) -> None:
    with pytest.raises(DownloadRefused) as caught:
        await store.fetch(f"http://me:p%40ss@127.0.0.1:{site.port}/f")
    assert base64.b64decode(site.asked[0].headers["Authorization"].removeprefix("Basic ")) == b"me:p@ss"
    assert str(caught.value) == (
        f"failed to download http://xxxxx:xxxxx@127.0.0.1:{site.port}/f: the server answered 404 Not Found"
    )


async def test_a_body_that_ends_early_is_no_download(store: DownloadStore, site: Site, tmp_path: Path) -> None:
    site.answers["/f"] = Answer(b"12345", length=10)
    with pytest.raises(DownloadFailed, match="the server broke off after 5 of 10 bytes"):
        await store.fetch(site.url("/f"))
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("length", [None, 1])
async def test_what_is_too_large_is_refused(tmp_path: Path, site: Site, length: int | None) -> None:
    site.answers["/f"] = Answer(bytes(5000), length=length)
    if length is not None:
        site.answers["/f"] = Answer(bytes(5000), headers={"Transfer-Encoding": "identity"}, length=5000)
    with pytest.raises(DownloadTooLarge, match="larger than 4000 bytes"):
        await open_store(tmp_path, DownloadLimits(maximum_bytes=4000)).fetch(site.url("/f"))
    assert files_of(tmp_path) == []


async def test_a_server_that_is_not_there_is_told_plainly(store: DownloadStore) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DownloadFailed, match=f"failed to download http://127.0.0.1:{port}/f: Connection refused"):
        await store.fetch(f"http://127.0.0.1:{port}/f")
    with pytest.raises(DownloadFailed, match=r"http://host\.invalid/f: "):
        await store.fetch("http://host.invalid/f", environment=NO_PROXIES)


async def test_a_server_that_is_silent_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store(tmp_path, DownloadLimits(timeout_s=0.2))
        with pytest.raises(DownloadFailed, match=r"the server did not answer for 0\.2 s"):
            await store.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/f")


async def test_a_cancelled_download_leaves_nothing(store: DownloadStore, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        fetching = asyncio.create_task(store.fetch(f"http://127.0.0.1:{server.getsockname()[1]}/f"))
        connection, _ = await asyncio.get_running_loop().sock_accept(server)
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
    assert files_of(tmp_path) == []


async def test_what_a_killed_daemon_left_is_removed(store: DownloadStore, tmp_path: Path) -> None:
    (tmp_path / "store" / "files" / ".tmp-x-download").write_bytes(b"half")
    store.open()
    assert files_of(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["http://", "http:///f", "http://host:99999/f", "http://[::1/f", "http://a b/", "ftp://h/f"]
)
async def test_a_url_that_is_none_is_refused(store: DownloadStore, url: str) -> None:
    with pytest.raises(InvalidUrl):
        await store.fetch(url)


async def test_a_url_with_a_line_break_asks_nobody(store: DownloadStore, site: Site) -> None:
    with pytest.raises(InvalidUrl):
        await store.fetch(site.url("/f\r\nX-Injected: 1"))
    assert site.asked == []


async def test_a_proxy_of_the_environment_is_asked(store: DownloadStore, site: Site) -> None:
    site.answers["http://host.invalid/f"] = Answer(b"through a proxy")
    downloaded = await store.fetch(
        "http://host.invalid/f", environment={"HTTP_PROXY": f"http://u:p@127.0.0.1:{site.port}"}
    )
    assert downloaded.path.read_bytes() == b"through a proxy"
    assert site.asked[0].headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
    assert "Authorization" not in site.asked[0].headers


async def test_a_proxy_that_is_none_of_http_is_refused(store: DownloadStore) -> None:
    with pytest.raises(InvalidUrl, match="a proxy's URL must begin with http://"):
        await store.fetch("http://host.invalid/f", environment={"http_proxy": "socks5://127.0.0.1:1"})


@pytest.mark.parametrize(
    ("url", "exceptions", "proxied"),
    [
        ("http://host/", "", True),
        ("http://host/", "*", False),
        ("http://host/", "other, host", False),
        ("http://sub.host/", "host", False),
        ("http://host/", ".host", True),
        ("http://sub.host/", "*.host", False),
        ("http://xhost/", "host", True),
        ("http://host:8080/", "host:8080", False),
        ("http://host/", "host:8080", True),
        ("http://10.1.2.3/", "10.0.0.0/8", False),
        ("http://11.1.2.3/", "10.0.0.0/8", True),
        ("http://[fd00::1]/", "fd00::1", False),
        ("http://localhost/", "", False),
        ("http://127.0.0.2/", "", False),
        ("https://host/", "", False),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(url: str, exceptions: str, proxied: bool) -> None:
    environment = {"HTTP_PROXY": "http://proxy:1", "no_proxy": exceptions}
    assert proxy_for(url, environment) == ("http://proxy:1" if proxied else "")


async def test_a_certificate_that_nobody_signed_is_told_with_a_hint(
    store: DownloadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    argv = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    subprocess.run(argv.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve(context) as site:
        site.answers["/f"] = Answer(b"secret")
        url = site.url("/f", "localhost").replace("http:", "https:")
        with pytest.raises(DownloadFailed, match=r"the server's certificate is not trusted: self.signed") as caught:
            await store.fetch(url)
        assert caught.value.hint is not None
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert (await store.fetch(url)).path.read_bytes() == b"secret"


async def test_a_server_without_tls_is_told(store: DownloadStore, site: Site) -> None:
    with pytest.raises(DownloadFailed, match="TLS: "):
        await store.fetch(site.url("/f").replace("http:", "https:"))


async def test_what_was_not_fetched_for_long_is_removed_with_its_entries(
    store: DownloadStore, site: Site, tmp_path: Path
) -> None:
    site.answers |= {"/old": Answer(b"old"), "/shared": Answer(b"new"), "/new": Answer(b"new")}
    for path in ("/old", "/shared", "/new"):
        await store.fetch(site.url(path))
    items = {item.description: item for item in await store.items()}
    assert {d: i.size_bytes for d, i in items.items()} == {"download old": 3, "download new shared": 3}
    for entry in (tmp_path / "store" / "urls").iterdir():
        os.utime(entry, ns=(0, 0))
    kept = await store.fetch(site.url("/new"))
    ids = [item.id for item in items.values()]
    assert await store.remove(ids, 1) == len(b"old"), "one of which an entry was used since then stays"
    assert kept.path.exists()
    assert await store.remove(ids, time.time_ns() + 10**12) == len(b"new")
    assert files_of(tmp_path) == []


def test_secrets_are_found_by_buildkits_names() -> None:
    assert http_authorization("https://h:8/f", {"HTTP_AUTH_TOKEN_h": "t", "HTTP_AUTH_HEADER_h": "x y"}) == "Bearer t"
    assert http_authorization("https://h/f", {"HTTP_AUTH_HEADER_h": "x y\n"}) == "x y"
    assert http_authorization("https://h/f", {"HTTP_AUTH_TOKEN_other": "t"}) == ""
    basic = "Basic " + base64.b64encode(b"x-access-token:t").decode()
    assert git_authorization("https://u@h/r.git", {"GIT_AUTH_TOKEN": "t"}) == basic
    assert git_authorization("https://h/r.git", {"GIT_AUTH_TOKEN.h": "t", "GIT_AUTH_HEADER": "x"}) == basic
    assert git_authorization("https://h/r.git", {"GIT_AUTH_TOKEN.other": "t"}) == ""
    assert git_authorization("ssh://h/r.git", {"GIT_AUTH_TOKEN": "t"}) == ""
