"""Git repositories as sources: what a ref is, and the files of it in a directory.

``resolve`` asks what a ref means now, without fetching anything: the commit is a source's identity for the build's cache. ``check_out``
fetches that commit, shallow where the server can, and puts its files where they are wanted.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lamina.build.remote.git_command import Git, GitAccess, GitFailed
from lamina.build.remote.sources import GitRepository, is_commit_id, redacted
from lamina.errors import InvalidArgument, NotFound, Unavailable
from lamina.linux import paths
from lamina.linux.files import temporary_name
from lamina.linux.tasks import to_the_end


class GitTimeout(Unavailable):
    """A repository's server took too long."""

    def __init__(self, remote: str, timeout_s: float) -> None:
        super().__init__(f"failed to fetch {redacted(remote)}: it took more than {timeout_s:g} s")
        self.timeout_s = timeout_s


class GitRefNotFound(NotFound):
    """A repository has no branch, tag or commit of this name."""

    def __init__(self, remote: str, ref: str) -> None:
        super().__init__(f"repository {redacted(remote)} does not contain ref {ref or 'HEAD'}")
        self.ref = ref

    @property
    def hint(self) -> str | None:
        """A shortened commit is no ref, as servers know them."""
        return "a commit is named by its full ID" if re.fullmatch("[0-9a-f]{4,39}", self.ref) else None


class GitChecksumMismatch(InvalidArgument):
    """A ref is another commit than the checksum says."""

    def __init__(self, remote: str, expected: str, actual: str) -> None:
        super().__init__(f"failed to fetch {redacted(remote)}: expected checksum to match {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


class GitDirectoryNotFound(NotFound):
    """A commit has no directory of this name."""

    def __init__(self, remote: str, subdir: str, reason: str) -> None:
        super().__init__(f"failed to open directory {subdir} of {redacted(remote)}: {reason}")
        self.subdir = subdir


@dataclass(frozen=True)
class Resolved:
    """What a ref is now: its full name (``HEAD`` for a default branch that has none, a commit's ID for itself) and its commit."""

    ref: str
    commit: str


@dataclass(frozen=True)
class CheckedOut:
    """A commit's files in a directory."""

    directory: Path
    commit: str


async def resolve(repository: GitRepository, access: GitAccess | None = None) -> Resolved:
    """Ask the repository what its ref means; a full commit ID means itself, and nobody is asked.

    Raises GitRefNotFound, GitChecksumMismatch, GitFailed, GitTimeout, GitMissing.
    """
    if repository.is_commit:
        _verify(repository, repository.ref)
        return Resolved(repository.ref, repository.ref)
    access = access or GitAccess()
    with tempfile.TemporaryDirectory(prefix="lamina-git-") as scratch:
        git = Git(repository.remote, access, Path(scratch))
        async with _deadline(repository, access):
            if repository.ref in ("", "HEAD"):
                listed = await git.run("read", "ls-remote", "--symref", git.remote, "HEAD")
            else:
                listed = await git.run("read", "ls-remote", git.remote, repository.ref, f"{repository.ref}^{{}}")
    resolved, tag = _choose(repository, listed)
    _verify(repository, resolved.commit, tag)
    return resolved


async def check_out(
    repository: GitRepository, directory: Path, access: GitAccess | None = None, resolved: Resolved | None = None
) -> CheckedOut:
    """Make *directory*, which must not exist, of the ref's files; of what was *resolved*, even if the ref has moved on since.

    With ``keep_git_dir`` and without a subdirectory there is a ``.git`` in it, whose origin bears no credentials. A failure or cancelling
    leaves nothing behind. Raises what resolve raises, and GitDirectoryNotFound.
    """
    access = access or GitAccess()
    resolved = resolved or await resolve(repository, access)
    work = temporary_name(directory)
    work.mkdir(mode=0o700)
    try:
        async with _deadline(repository, access):
            tree = _Tree(repository, Git(repository.remote, access, work), work / "tree")
            commit = await tree.fetch(resolved)
            await tree.fill(commit)
        if repository.keep_git_dir and os.path.normpath(f"/{repository.subdir}").strip("/") == "":
            (tree.path / ".git" / "FETCH_HEAD").unlink(missing_ok=True)
        else:
            await asyncio.to_thread(_remove_git_directories, tree.path)
        with _subdirectory(repository, tree.path) as found:
            found.rename(directory)
        return CheckedOut(directory, commit)
    finally:
        await to_the_end(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))


class _Tree:
    """A repository of our own in whose working tree a commit's files appear."""

    def __init__(self, repository: GitRepository, git: Git, path: Path) -> None:
        self.path = path
        self._repository = repository
        self._git = git

    async def fetch(self, resolved: Resolved) -> str:
        """Fetch what was resolved; the ID of its commit. Raises GitRefNotFound if the server does not have it any more."""
        await self._create(resolved)
        if not is_commit_id(resolved.ref):
            await self._fetch_shallow(resolved.ref if resolved.ref == "HEAD" else f"+{resolved.ref}:{resolved.ref}")
        if await self._find_commit(resolved.commit) is None:
            await self._fetch_commit(resolved.commit)
        commit = await self._find_commit(resolved.commit)
        if commit is None:
            raise GitRefNotFound(self._repository.remote, resolved.commit)
        return commit

    async def fill(self, commit: str) -> None:
        """Put the commit's files in the working tree, and those of its submodules if they are wanted."""
        await self._run("check out", "checkout", "--quiet", "--force", "--detach", commit)
        if not self._repository.submodules or not (self.path / ".gitmodules").is_file():
            return
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--force")
        try:
            await self._run("fetch submodules of", *update, "--depth=1")
        except GitFailed as error:
            if not _means_no_depth(error):
                raise
            # begun anew, as what was cloned shallow does not become whole by itself
            await self._run("clean", "submodule", "--quiet", "deinit", "--force", "--all")
            await asyncio.to_thread(shutil.rmtree, self.path / ".git" / "modules", ignore_errors=True)
            await self._run("fetch submodules of", *update)

    async def _create(self, resolved: Resolved) -> None:
        self.path.mkdir()
        self.path.chmod(0o755)
        object_format = "sha256" if len(resolved.commit) == 64 else "sha1"
        await self._run("initialize", "init", "--quiet", "--template=", f"--object-format={object_format}")
        await self._run("initialize", "remote", "add", "origin", self._git.remote)

    async def _fetch_shallow(self, *refspecs: str) -> None:
        fetch = ("fetch", "--quiet", "--no-tags", "--update-head-ok", "--no-recurse-submodules")
        try:
            await self._run("fetch", *fetch, "--depth=1", "origin", *refspecs)
        except GitFailed as error:
            if not _means_no_depth(error):
                raise
            await self._run("fetch", *fetch, "origin", *refspecs)

    async def _fetch_commit(self, commit: str) -> None:
        """Fetch one commit; from a server that gives only what refs point to, all branches and tags."""
        try:
            await self._fetch_shallow(commit)
        except GitFailed as error:
            if not re.search("not our ref|unadvertised object|Server does not allow request", error.reason):
                raise
            await self._run("fetch", "fetch", "--quiet", "--tags", "--no-recurse-submodules", "origin")

    async def _find_commit(self, object_id: str) -> str | None:
        """The commit that an object is, or that the tag is of; None if it is not here."""
        try:
            found = await self._run("read", "rev-parse", "--verify", "--quiet", f"{object_id}^{{commit}}")
        except GitFailed:
            return None
        return found.strip()

    async def _run(self, purpose: str, *args: str) -> str:
        return await self._git.run(purpose, *args, cwd=self.path)


@contextmanager
def _subdirectory(repository: GitRepository, tree: Path) -> Iterator[Path]:
    """The directory that is wanted of a tree; links are followed inside of it alone."""
    try:
        fd = paths.open_in_root(tree, repository.subdir or "/", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise GitDirectoryNotFound(repository.remote, repository.subdir, error.strerror or str(error)) from None
    try:
        yield Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def _remove_git_directories(tree: Path) -> None:
    """Remove ``.git`` and the files of that name in submodules, which would point at it. Blocking."""
    for directory, directories, files in os.walk(tree):
        if ".git" in directories:
            directories.remove(".git")
            shutil.rmtree(os.path.join(directory, ".git"))
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))


def _choose(repository: GitRepository, listed: str) -> tuple[Resolved, str]:
    """What a ref is among those that a repository listed, and the ID of the tag if it is an annotated one.

    As BuildKit and git: a full name first, then a branch, then a tag. Raises GitRefNotFound.
    """
    ids: dict[str, str] = {}
    branch = ""
    for line in listed.splitlines():
        object_id, _, name = line.partition("\t")
        if object_id.startswith("ref: "):
            branch = object_id.removeprefix("ref: ")
        elif is_commit_id(object_id):
            ids[name] = object_id
    ref = repository.ref
    if ref in ("", "HEAD"):
        names = ["HEAD"]
    else:
        names = [f"refs/{ref.removeprefix('refs/')}"]
        names += [f"{kind}{ref.removeprefix(kind)}" for kind in ("refs/heads/", "refs/tags/")]
    for name in names:
        if name in ids:
            peeled = ids.get(f"{name}^{{}}", "")
            chosen = branch if name == "HEAD" and branch else name
            return Resolved(chosen, peeled or ids[name]), ids[name] if peeled else ""
    raise GitRefNotFound(repository.remote, ref)


def _verify(repository: GitRepository, *ids: str) -> None:
    """Raises GitChecksumMismatch unless one of the IDs, a commit's or its tag's, begins with the repository's checksum."""
    if not any(i.startswith(repository.checksum) for i in ids if i):
        raise GitChecksumMismatch(repository.remote, repository.checksum, " or ".join(i for i in ids if i))


def _means_no_depth(error: GitFailed) -> bool:
    """Whether git complains that a server cannot fetch shallow, as a plain file server cannot, or a commit that no ref points to."""
    return re.search("--depth|shallow|Direct fetching of that commit failed", error.reason) is not None


@asynccontextmanager
async def _deadline(repository: GitRepository, access: GitAccess) -> AsyncIterator[None]:
    """End what takes longer than it may. Raises GitTimeout."""
    try:
        async with asyncio.timeout(access.timeout_s):
            yield
    except TimeoutError:
        raise GitTimeout(repository.remote, access.timeout_s) from None
