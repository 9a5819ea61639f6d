"""What a source's text names: a file of the context, a URL, or a git repository.

ADD's sources and a build's context are one text that may be any of them. The rules are BuildKit's, to the letter (dfgitutil.ParseGitRef
over gitutil and sshutil): a URL is a repository if its scheme is git's or ssh's, or if its *path* ends in ``.git``; ``user@host:path``
is one too; ``github.com/…`` only as a context, for a file may have that name. Which ref, which directory and how is said by the
fragment (``#ref:subdir``) or the query (``?branch=…&subdir=…``).

A GitRepository can be given to git: what could be taken for an option, a helper program or a refspec is refused here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from lamina.errors import InvalidArgument

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_GIT_SCHEMES = frozenset({"http", "https", "ssh", "git"})
_SCP = re.compile(r"([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):(.*?)(?:\?(.*?))?(?:#(.*))?")
"""``user@host:path?query#fragment`` (sshutil.ParseSCPStyleURL)."""

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_REF = re.compile(r"(?![-./])(?!.*(?:\.\.|//|@\{|/\.|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
"""A ref's name or a commit's ID as git-check-ref-format(1) allows it; none that git would take for an option or a refspec."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_QUERIES = frozenset({"ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules"})
_FLAGS = frozenset({"keep-git-dir", "submodules"})
_TRUE = frozenset({"", "1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class InvalidRemote(InvalidArgument):
    """A text looks like a URL or a repository, and is none that can be fetched."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid source {redacted(text)!r}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class LocalPath:
    """A path in the build context, or on the host."""

    path: str


@dataclass(frozen=True)
class HttpUrl:
    """A file behind an http or https URL."""

    url: str


@dataclass(frozen=True)
class GitRepository:
    """A repository that git can fetch from, and what is wanted of it.

    *remote* is what git is given. *ref* is a branch, a tag, a full ref or a full commit ID; empty for the default branch. *checksum* is
    the beginning of the commit's ID in hexadecimal that ref must have. *keep_git_dir* is None where the text does not say.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True

    def __post_init__(self) -> None:
        """Raises InvalidRemote for what git must not be given."""
        if _UNPRINTABLE.search(self.remote):
            raise InvalidRemote(self.remote, "spaces and control characters are not allowed")
        if any(part.startswith("-") for part in _parts_for_ssh(self.remote)):
            raise InvalidRemote(self.remote, "a host, user or path that begins with '-' is not allowed")
        if self.ref and not _REF.fullmatch(self.ref):
            raise InvalidRemote(self.remote, f"{self.ref!r} is no name of a branch, tag or commit")
        if re.search(r"[\x00-\x1f]", self.subdir):
            raise InvalidRemote(self.remote, f"{self.subdir!r} is no path of a directory")
        if self.checksum and not re.fullmatch(r"[0-9a-f]{1,64}", self.checksum):
            raise InvalidRemote(self.remote, f"invalid checksum {self.checksum}: expected a commit's hexadecimal ID")

    @property
    def is_commit(self) -> bool:
        """Whether the ref is a commit's full ID, so that nobody need be asked what it means."""
        return is_commit_id(self.ref)

    def with_flags(self, *, keep_git_dir: bool | None = None, checksum: str = "") -> GitRepository:
        """Add what ADD's flags say to what its source says. Raises InvalidRemote if they contradict each other.

        A checksum that is a flag chooses no commit, other than one in the query: it is what the ref must turn out to be.
        """
        keeps = {flag for flag in (keep_git_dir, self.keep_git_dir) if flag is not None}
        if len(keeps) > 1:
            raise InvalidRemote(self.remote, "inconsistent keep-git-dir configuration")
        agreed = _agree(self.remote, "checksum", self.checksum, checksum.lower())
        return dataclasses.replace(self, keep_git_dir=next(iter(keeps), None), checksum=agreed)


RemoteSource = LocalPath | HttpUrl | GitRepository


def is_commit_id(text: str) -> bool:
    """Whether a text is a full object ID, SHA-1's or SHA-256's."""
    return _COMMIT.fullmatch(text) is not None


def parse_source(text: str, *, context: bool = False) -> RemoteSource:
    """What a source of ADD names, or, if *context*, a build's context; whether a ``github.com/…`` exists locally is the caller's to see.

    Raises InvalidRemote for a repository's URL with a query or a name that makes no sense.
    """
    repository = _parse_git(text, context=context)
    if repository is not None:
        return repository
    if text.startswith(("http://", "https://")):
        return HttpUrl(text)
    return LocalPath(text)


def redacted(url: str) -> str:
    """A URL as it may be shown: no password, and no user's name that may be a token."""
    match = re.fullmatch(r"(?s)([a-zA-Z0-9]+)://([^/?#]*)@(.*)", url)
    if match is None:
        return url
    scheme, userinfo, rest = match.groups()
    user, colon, _ = userinfo.partition(":")
    if scheme.lower().startswith("http"):
        user = "xxxxx"
    return f"{scheme}://{user}{':xxxxx' if colon else ''}@{rest}"


def _parse_git(text: str, *, context: bool) -> GitRepository | None:
    if text.startswith(("./", "../")):
        return None
    if text.startswith("github.com/"):
        return _from_url(f"https://{text}") if context else None
    scheme = _SCHEME.match(text)
    if scheme is not None:
        return _parse_git_url(text, scheme[1].lower())
    scp = _SCP.fullmatch(text)
    if scp is None:
        return None
    user, host, path, query, fragment = scp.groups()
    return _repository(f"{user}@{host}:{path}", query or "", fragment or "")


def _parse_git_url(text: str, scheme: str) -> GitRepository | None:
    if scheme not in _GIT_SCHEMES:
        return None
    try:
        path = urlsplit(text).path
    except ValueError as error:
        raise InvalidRemote(text, str(error)) from None
    if scheme in ("http", "https") and not unquote(path).endswith(".git"):
        return None
    return _from_url(text)


def _from_url(text: str) -> GitRepository:
    if _UNPRINTABLE.search(text):
        # urlsplit would drop some of them silently
        raise InvalidRemote(text, "spaces and control characters are not allowed")
    parts = urlsplit(text)
    if not parts.hostname:
        raise InvalidRemote(text, "it names no host")
    remote = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return _repository(remote, parts.query, unquote(parts.fragment))


def _repository(remote: str, query: str, fragment: str) -> GitRepository:
    """Put together what fragment and query say (dfgitutil, GitRef.loadQuery)."""
    options = _read_query(remote, query)
    ref, _, subdir = fragment.partition(":")
    ref = _agree(remote, "ref", ref, options.get("ref", ""))
    for kind, prefix in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if kind in options:
            ref = _agree(remote, "ref", ref, prefix + options[kind].removeprefix(prefix))
    checksum = _agree(remote, "checksum", options.get("checksum", ""), options.get("commit", "")).lower()
    return GitRepository(
        remote=remote,
        ref=ref or checksum,
        subdir=_agree(remote, "subdir", subdir, options.get("subdir", "")),
        checksum=checksum,
        keep_git_dir=_read_flag(remote, options, "keep-git-dir"),
        submodules=_read_flag(remote, options, "submodules") is not False,
    )


def _read_query(remote: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, values in parse_qs(query, keep_blank_values=True).items():
        if key not in _QUERIES:
            raise InvalidRemote(remote, f'unexpected query "{key}"')
        if len(values) > 1:
            raise InvalidRemote(remote, f'query "{key}" has multiple values')
        if not values[0] and key not in _FLAGS:
            raise InvalidRemote(remote, f'query "{key}" has no value')
        options[key] = values[0]
    if "tag" in options and "branch" in options:
        raise InvalidRemote(remote, "branch conflicts with tag")
    return options


def _read_flag(remote: str, options: Mapping[str, str], name: str) -> bool | None:
    if name not in options:
        return None
    if options[name] not in _TRUE | _FALSE:
        raise InvalidRemote(remote, f'invalid {name} value: "{options[name]}"')
    return options[name] in _TRUE


def _agree(remote: str, name: str, first: str, second: str) -> str:
    """What two places say of one thing. Raises InvalidRemote if they say different things."""
    if first and second and first != second:
        raise InvalidRemote(remote, f'{name} conflicts: "{first}" vs "{second}"')
    return first or second


def _parts_for_ssh(remote: str) -> tuple[str, ...]:
    """What git hands over to ssh of a remote, each of which ssh or the far shell could take for an option."""
    scp = _SCP.fullmatch(remote)
    if scp is not None and _SCHEME.match(remote) is None:
        return scp[1], scp[2], scp[3]
    parts = urlsplit(remote)
    return parts.netloc, parts.hostname or "", parts.path.lstrip("/")
