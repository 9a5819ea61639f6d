"""``registry``: a look into registries, and copies between them, without a daemon."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.cli.grammar import CommandFailed, Parser
from lamina.cli.images import check_platform
from lamina.cli.output import stderr
from lamina.client.client import Client
from lamina.client.credentials import as_credentials, known_of
from lamina.errors import LaminaError
from lamina.oci.reference import Reference

if TYPE_CHECKING:
    from lamina.registry import Access
    from lamina.registry.places import Place, RegistryPlace

_PLACES = "a name is HOST/REPOSITORY[:TAG|@DIGEST], or oci:DIRECTORY[:TAG] for an image layout"


def ls(client: Client, argv: list[str]) -> int:
    """``lamina registry ls``."""
    parser = _parser("registry ls", "[OPTIONS] REGISTRY")
    parser.add_argument("registry")
    options = parser.parse(argv)
    from lamina.registry.inspection import list_repositories

    access = _access(Reference(options.registry.rstrip("/"), ""), insecure=options.insecure)
    for name in list_repositories(access):
        print(name)
    return 0


def tags(client: Client, argv: list[str]) -> int:
    """``lamina registry tags``."""
    parser = _parser("registry tags", "[OPTIONS] REPOSITORY")
    parser.add_argument("repository")
    options = parser.parse(argv)
    for tag in _registry_place(options.repository, insecure=options.insecure).repository.tags():
        print(tag)
    return 0


def inspect(client: Client, argv: list[str]) -> int:
    """``lamina registry inspect``."""
    parser = _parser("registry inspect", "[OPTIONS] NAME[:TAG|@DIGEST]")
    parser.flag("--config", help="Show the image's config instead of its manifest")
    parser.value("--platform", help="Of an index, show the image for a platform")
    parser.flag("--raw", help="Print the bytes as they are")
    parser.flag("-v", "--verbose", help="Show the name, descriptor and platforms, too")
    parser.add_argument("name")
    options = parser.parse(argv)
    if options.platform:
        check_platform(options.platform)
    place = _place(options.name, insecure=options.insecure)
    data, more = _inspected(place, options.platform, config=options.config)
    if options.raw:
        sys.stdout.buffer.write(data)
        return 0
    shown = json.loads(data)
    print(json.dumps({"Ref": options.name, **more, "Manifest": shown} if options.verbose else shown, indent=3))
    return 0


def _inspected(place: Place, platform: str | None, *, config: bool) -> tuple[bytes, dict[str, object]]:
    from lamina.oci.digest import Digest
    from lamina.oci.manifest import parse_document
    from lamina.oci.platform import Platform
    from lamina.registry.copying import select

    media_type, data = place.manifest()
    if platform or config:
        media_type, data = select(place, media_type, data, Platform.parse(platform) if platform else Platform.of_host())
    document = parse_document(data, media_type)
    descriptor = {"mediaType": document.media_type, "digest": str(Digest.of(data)), "size": len(data)}
    if config:
        from lamina.oci.manifest import Manifest

        assert isinstance(document, Manifest)
        data = place.read_blob(document.config.digest)
    return data, {"Descriptor": descriptor}


def rm(client: Client, argv: list[str]) -> int:
    """``lamina registry rm``."""
    parser = _parser("registry rm", "[OPTIONS] NAME[:TAG|@DIGEST] [NAME...]")
    parser.flag(
        "-f", "--force", help="Remove a tag's manifest with its other tags, where a registry removes no tags alone"
    )
    parser.add_argument("names", nargs="+")
    options = parser.parse(argv)
    code = 0
    for name in options.names:
        try:
            _remove(_registry_place(name, insecure=options.insecure), force=options.force)
            print(name)
        except LaminaError as error:
            stderr(f"{name}: {error}")
            code = 1
    return code


def _remove(place: RegistryPlace, *, force: bool) -> None:
    """Remove what a name means; a tag alone, or with its manifest if the registry cannot do better and nothing else is lost."""
    from lamina.registry.errors import RegistryRefused

    repository = place.repository
    heading = repository.head_manifest(place.name)
    try:
        repository.delete_manifest(place.name)
        return
    except RegistryRefused as error:
        if place.access.reference.digest is not None or error.status not in (400, 405) or heading.digest is None:
            raise
    others = [tag for tag in repository.tags() if tag != place.name]
    sharing = [tag for tag in others if repository.head_manifest(tag).digest == heading.digest]
    if sharing and not force:
        raise CommandFailed(
            f"{place}: the registry removes manifests only, and that one has other tags: {', '.join(sharing)}; see --force"
        )
    repository.delete_manifest(heading.digest)


def copy(client: Client, argv: list[str]) -> int:
    """``lamina registry copy``."""
    parser = _parser("registry copy", "[OPTIONS] SOURCE TARGET")
    parser.flag("-a", "--all-tags", help="Copy all tags of a repository to another one")
    parser.value("--platform", help="Of an index, copy the image for a platform alone")
    parser.flag("-q", "--quiet", help="Print the digest alone")
    parser.flag(
        "--referrers", default=True, help="Copy what refers to the image, too: signatures and such (default true)"
    )
    parser.add_argument("source")
    parser.add_argument("target")
    options = parser.parse(argv)
    if options.platform:
        check_platform(options.platform)
    from lamina.oci.platform import Platform
    from lamina.registry.copying import Copying

    pairs = [(options.source, options.target)]
    if options.all_tags:
        repository = _registry_place(options.source, insecure=options.insecure).repository
        pairs = [(f"{options.source}:{tag}", f"{options.target}:{tag}") for tag in repository.tags()]
    for source, target in pairs:
        copying = Copying(
            _place(source, insecure=options.insecure),
            _place(target, insecure=options.insecure),
            (lambda text: None) if options.quiet else stderr,
            options.referrers,
        )
        print(copying.run(Platform.parse(options.platform) if options.platform else None))
    return 0


def _parser(command: str, usage: str) -> Parser:
    parser = Parser(command, usage)
    parser.flag("--insecure", help="The registry may speak HTTP, or have a certificate that nobody vouches for")
    return parser


def _place(text: str, *, insecure: bool) -> Place:
    """What a name on the command line means. Raises CommandFailed, InvalidReference."""
    if text.startswith("oci:"):
        from lamina.registry.layouts import LayoutPlace

        directory, colon, tag = text.removeprefix("oci:").rpartition(":")
        if not colon or "/" in tag:
            directory, tag = text.removeprefix("oci:"), "latest"
        if not directory:
            raise CommandFailed(f"{text}: no directory is named; {_PLACES}")
        return LayoutPlace(Path(directory), tag)
    return _registry_place(text, insecure=insecure)


def _registry_place(text: str, *, insecure: bool) -> RegistryPlace:
    from lamina.registry.places import RegistryPlace

    reference = Reference.parse_tagged(text.removeprefix("docker://"))
    return RegistryPlace(_access(reference, insecure=insecure))


def _access(reference: Reference, *, insecure: bool) -> Access:
    from lamina.registry import Access
    from lamina.registry.hosts import Settings

    known = known_of(reference.domain)
    settings = Settings(insecure=[reference.domain] if insecure else [])
    return Access.of(reference, settings, as_credentials(known) if known else None)


COMMANDS = {
    "registry copy": copy,
    "registry inspect": inspect,
    "registry ls": ls,
    "registry rm": rm,
    "registry tags": tags,
}
