"""What a source's text names. The table of repositories is BuildKit's own (dfgitutil's and gitutil's tests), row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.build.remote.sources import GitRepository, HttpUrl, InvalidRemote, LocalPath, parse_source, redacted

SHA = "deadbeef" * 5
DOCKER = "https://github.com/docker/docker.git"
BUILDKIT = "https://github.com/moby/buildkit.git"

REPOSITORIES: dict[str, GitRepository] = {
    "https://example.com/foo.git": GitRepository("https://example.com/foo.git"),
    "http://example.com/foo.git": GitRepository("http://example.com/foo.git"),
    "HTTP://example.com/foo.git": GitRepository("http://example.com/foo.git"),
    "https://example.com/foo.git#deadbeef": GitRepository("https://example.com/foo.git", "deadbeef"),
    "https://example.com/foo.git#release/1.2": GitRepository("https://example.com/foo.git", "release/1.2"),
    "git://example.com/foo": GitRepository("git://example.com/foo"),
    "git://host.xz:1234/path/to/repo.git": GitRepository("git://host.xz:1234/path/to/repo.git"),
    "https://foo:bar@github.com/moby/buildkit.git": GitRepository("https://foo:bar@github.com/moby/buildkit.git"),
    "git@github.com:moby/buildkit": GitRepository("git@github.com:moby/buildkit"),
    "git@github.com:moby/buildkit.git": GitRepository("git@github.com:moby/buildkit.git"),
    "git@github.com:moby/buildkit.git#v1.0.0:hack": GitRepository("git@github.com:moby/buildkit.git", "v1.0.0", "hack"),
    "nonstandarduser@example.com:/srv/weird/project.git": GitRepository(
        "nonstandarduser@example.com:/srv/weird/project.git"
    ),
    "ssh://git@github.com/moby/buildkit.git": GitRepository("ssh://git@github.com/moby/buildkit.git"),
    "ssh://root@sub.example.hostname:2222/root/foo.git": GitRepository(
        "ssh://root@sub.example.hostname:2222/root/foo.git"
    ),
    "https://github.com/foo/bar.git#baz/qux:quux/quuz": GitRepository(
        "https://github.com/foo/bar.git", "baz/qux", "quux/quuz"
    ),
    f"{DOCKER}#:myfolder": GitRepository(DOCKER, "", "myfolder"),
    f"{DOCKER}?ref=v1.0.0&subdir=/subdir": GitRepository(DOCKER, "v1.0.0", "/subdir"),
    f"{BUILDKIT}?subdir=/subdir#v1.0.0": GitRepository(BUILDKIT, "v1.0.0", "/subdir"),
    f"{BUILDKIT}?tag=v1.0.0": GitRepository(BUILDKIT, "refs/tags/v1.0.0"),
    f"{BUILDKIT}?tag=refs/tags/v1.0.0": GitRepository(BUILDKIT, "refs/tags/v1.0.0"),
    f"{BUILDKIT}?branch=v1.0": GitRepository(BUILDKIT, "refs/heads/v1.0"),
    f"{BUILDKIT}?ref=v1#v1": GitRepository(BUILDKIT, "v1"),
    f"{BUILDKIT}?tag=v1&checksum={SHA}": GitRepository(BUILDKIT, "refs/tags/v1", checksum=SHA),
    f"{BUILDKIT}?commit={SHA}": GitRepository(BUILDKIT, SHA, checksum=SHA),
    f"{BUILDKIT}?keep-git-dir": GitRepository(BUILDKIT, keep_git_dir=True),
    f"{BUILDKIT}?keep-git-dir=0": GitRepository(BUILDKIT, keep_git_dir=False),
    f"{BUILDKIT}?submodules=false": GitRepository(BUILDKIT, submodules=False),
    f"{BUILDKIT}?submodules": GitRepository(BUILDKIT),
    "git@github.com:moby/buildkit.git?subdir=/subdir#v1.0.0": GitRepository(
        "git@github.com:moby/buildkit.git", "v1.0.0", "/subdir"
    ),
    "https://example.com/a%2Egit#feature%2Fx": GitRepository("https://example.com/a%2Egit", "feature/x"),
}

URLS = (
    "https://example.com/",
    "https://example.com/foo",
    "https://example.com/foo.git/",
    "https://example.com/foo.git.bar",
    "https://example.com/download?file=foo.git",
    "https://github.com/moby/buildkit",
    "http://github.com/docker/docker.git:#branch",
)

PATHS = (
    "custom.xyz/moby/buildkit.git",
    "github.com/moby/buildkit",
    "./.git",
    ".git",
    "../x@y:z",
    "/abs/repo.git",
    "file:///srv/repo.git",
    "ext::sh -c touch% /tmp/x",
    "httpx://github.com/moby/buildkit",
    "git+ssh://host/x.git",
    "host:path.git",
    "",
)


@pytest.mark.parametrize("text", REPOSITORIES)
def test_a_repository_is_known_by_its_scheme_or_its_paths_suffix(text: str) -> None:
    assert parse_source(text) == REPOSITORIES[text]
    assert parse_source(text, context=True) == REPOSITORIES[text]


@pytest.mark.parametrize("text", URLS)
def test_any_other_http_url_is_a_file(text: str) -> None:
    assert parse_source(text) == parse_source(text, context=True) == HttpUrl(text)


@pytest.mark.parametrize("text", PATHS)
def test_anything_else_is_a_path(text: str) -> None:
    assert parse_source(text) == LocalPath(text)


def test_github_without_a_scheme_is_a_repository_only_as_a_context() -> None:
    remote = "https://github.com/moby/buildkit"
    assert parse_source("github.com/moby/buildkit", context=True) == GitRepository(remote)
    assert parse_source("github.com/moby/buildkit#master", context=True) == GitRepository(remote, "master")
    assert parse_source("github.com/moby/buildkit?tag=v1", context=True) == GitRepository(remote, "refs/tags/v1")


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        ("?ref=v1.0.0#v1.2.3", "ref conflicts"),
        ("?ref=v1.0.0&tag=v1.2.3", "ref conflicts"),
        ("?tag=v1.0.0&branch=v1.0", "branch conflicts with tag"),
        ("?subdir=a#x:b", "subdir conflicts"),
        ("?invalid=123", 'unexpected query "invalid"'),
        ("?ref=", 'query "ref" has no value'),
        ("?ref=a&ref=b", 'query "ref" has multiple values'),
        ("?keep-git-dir=perhaps", "invalid keep-git-dir value"),
        ("?checksum=xyz", "invalid checksum"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(suffix: str, reason: str) -> None:
    with pytest.raises(InvalidRemote, match=reason):
        parse_source(BUILDKIT + suffix)


@pytest.mark.parametrize(
    "text",
    [
        "ssh://-oProxyCommand=touch$IFS/tmp/x/repo.git",
        "ssh://git@-oProxyCommand=x/repo.git",
        "-x@host:repo.git",
        "git@-host:repo.git",
        "git@host:--upload-pack=x",
        "git://host/-x",
        f"{BUILDKIT}#--upload-pack=touch",
        f"{BUILDKIT}?ref=-x",
        f"{BUILDKIT}?ref=a:refs/heads/b",
        f"{BUILDKIT}?ref=^a",
        f"{BUILDKIT}?ref=refs/heads/*",
        f"{BUILDKIT}#a..b",
        f"{BUILDKIT}#HEAD@{{1}}",
        f"{BUILDKIT}?ref=a%0Ab",
        f"{BUILDKIT}#x:a%00b",
        "https://exa mple.com/x.git",
        "https://example.com/x\n.git",
        "git@host:a b.git",
        "https:///x.git",
        "https://[::1/x.git",
    ],
)
def test_what_git_or_ssh_could_take_for_something_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRemote):
        parse_source(text)


def test_flags_and_query_must_not_contradict_each_other() -> None:
    plain, kept = GitRepository(BUILDKIT), GitRepository(BUILDKIT, keep_git_dir=True)
    assert plain.with_flags(keep_git_dir=True) == kept == kept.with_flags()
    assert plain.with_flags(checksum=SHA.upper()) == GitRepository(BUILDKIT, checksum=SHA)
    with pytest.raises(InvalidRemote, match="inconsistent keep-git-dir"):
        kept.with_flags(keep_git_dir=False)
    with pytest.raises(InvalidRemote, match="checksum conflicts"):
        GitRepository(BUILDKIT, checksum="aa").with_flags(checksum="bb")


def test_only_a_full_object_id_is_a_commit() -> None:
    assert GitRepository(BUILDKIT, SHA).is_commit
    assert GitRepository(BUILDKIT, "ab" * 32).is_commit
    assert not GitRepository(BUILDKIT, "deadbeef").is_commit


def test_a_shown_url_has_no_credentials() -> None:
    assert redacted("https://me:secret@host/x.git") == "https://xxxxx:xxxxx@host/x.git"
    assert redacted("https://token@host/x") == "https://xxxxx@host/x"
    assert redacted("https://a:p@ss@host/x") == "https://xxxxx:xxxxx@host/x"
    assert redacted("ssh://git@host/x") == "ssh://git@host/x"
    assert redacted("https://host/a@b") == "https://host/a@b"
    with pytest.raises(InvalidRemote) as caught:
        parse_source("https://me:secret@host/x.git?what=1")
    assert "secret" not in str(caught.value)


@given(st.text() | st.from_regex(r"(https|ssh|git)://[^\s]*\.git[?#].*") | st.from_regex(r"[a-z-]+@[a-z.-]+:.*"))
def test_any_text_names_something_or_is_refused(text: str) -> None:
    for context in (False, True):
        try:
            parse_source(text, context=context)
        except InvalidRemote as error:
            assert error.message
