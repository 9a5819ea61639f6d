"""What commands there are: the module each is in, what it does in a line, and the groups that docker has them in, too."""

from __future__ import annotations


class Command:
    """The module of ``lamina.cli`` whose COMMANDS has it, and its description."""

    __slots__ = ("description", "module")

    def __init__(self, module: str, description: str) -> None:
        self.module = module
        self.description = description


class Group:
    """A group's description, and its commands: the word to type and the command's name in COMMANDS."""

    __slots__ = ("commands", "description")

    def __init__(self, description: str, commands: dict[str, str]) -> None:
        self.description = description
        self.commands = commands


COMMANDS = {
    "attach": Command("containers", "Attach local standard input, output, and error streams to a running container"),
    "bootstrap": Command("bootstrap", "Make a base image from a distribution's packages"),
    "build": Command("build", "Build an image from a Dockerfile"),
    "commit": Command("commit", "Create a new image from a container's changes"),
    "cp": Command("cp", "Copy files/folders between a container and the local filesystem"),
    "create": Command("run", "Create a new container"),
    "diff": Command("diff", "Inspect changes to files or directories on a container's filesystem"),
    "doctor": Command("system", "Tell what this host lacks to run lamina"),
    "events": Command("system", "Get real time events from the server"),
    "exec": Command("exec", "Execute a command in a running container"),
    "export": Command("containers", "Export a container's filesystem as a tar archive"),
    "history": Command("images", "Show the history of an image"),
    "images": Command("images", "List images"),
    "import": Command("images", "Import the contents from a tarball to create a filesystem image"),
    "info": Command("system", "Display system-wide information"),
    "inspect": Command("inspect", "Return low-level information on lamina's objects"),
    "kill": Command("containers", "Kill one or more running containers"),
    "load": Command("images", "Load an image from a tar archive or STDIN"),
    "login": Command("registries", "Authenticate to a registry"),
    "logout": Command("registries", "Log out from a registry"),
    "logs": Command("containers", "Fetch the logs of a container"),
    "pause": Command("containers", "Pause all processes within one or more containers"),
    "port": Command("port", "List port mappings or a specific mapping for the container"),
    "ps": Command("ps", "List containers"),
    "pull": Command("registries", "Download an image from a registry"),
    "push": Command("registries", "Upload an image to a registry"),
    "rename": Command("containers", "Rename a container"),
    "restart": Command("containers", "Restart one or more containers"),
    "rm": Command("containers", "Remove one or more containers"),
    "rmi": Command("images", "Remove one or more images"),
    "run": Command("run", "Create and run a new container from an image"),
    "save": Command("images", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "search": Command("registries", "Search Docker Hub, or another registry, for images"),
    "start": Command("containers", "Start one or more stopped containers"),
    "stats": Command("stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": Command("containers", "Stop one or more running containers"),
    "tag": Command("images", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "top": Command("top", "Display the running processes of a container"),
    "unpause": Command("containers", "Unpause all processes within one or more containers"),
    "update": Command("update", "Update configuration of one or more containers"),
    "verify": Command("images", "Hash every blob of images again and compare"),
    "version": Command("system", "Show the lamina version information"),
    "wait": Command("containers", "Block until one or more containers stop, then print their exit codes"),
}

GROUP_COMMANDS = {
    "builder du": Command("builder", "Show what builds keep for later ones"),
    "builder prune": Command("builder", "Remove build cache"),
    "container inspect": Command("inspect", "Display detailed information on one or more containers"),
    "container prune": Command("pruning", "Remove all stopped containers"),
    "image inspect": Command("inspect", "Display detailed information on one or more images"),
    "image prune": Command("pruning", "Remove unused images"),
    "image receive": Command("sending", "Take images that another host sends (image send calls it)"),
    "image send": Command("sending", "Send images to another host over ssh, without the layers that it has"),
    "network connect": Command("networks", "Connect a container to a network"),
    "network create": Command("networks", "Create a network"),
    "network disconnect": Command("networks", "Disconnect a container from a network"),
    "network inspect": Command("inspect", "Display detailed information on one or more networks"),
    "network ls": Command("networks", "List networks"),
    "network prune": Command("pruning", "Remove all unused networks"),
    "network rm": Command("networks", "Remove one or more networks"),
    "registry copy": Command("registry", "Copy images from one registry or layout to another"),
    "registry inspect": Command("registry", "Show a manifest, or an image's config, of a registry"),
    "registry ls": Command("registry", "List the repositories of a registry"),
    "registry rm": Command("registry", "Remove tags or manifests from a registry"),
    "registry serve": Command("registry", "Serve a registry in the foreground"),
    "registry tags": Command("registry", "List the tags of a repository"),
    "system df": Command("system", "Show disk usage"),
    "system prune": Command("pruning", "Remove unused data"),
    "volume backup": Command("volume_care", "Back up a volume to a tar.zst archive"),
    "volume clone": Command("volume_care", "Make a new volume with a volume's files"),
    "volume create": Command("volumes", "Create a volume"),
    "volume inspect": Command("inspect", "Display detailed information on one or more volumes"),
    "volume ls": Command("volumes", "List volumes"),
    "volume prune": Command("pruning", "Remove unused local volumes"),
    "volume restore": Command("volume_care", "Make a backup's files a volume's"),
    "volume rm": Command("volumes", "Remove one or more volumes"),
    "volume snapshot": Command("volume_care", "Manage snapshots of a volume"),
}

_OF_CONTAINERS = ("attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename", "restart", "rm",
                  "run", "start", "stats", "stop", "top", "unpause", "update", "wait")  # fmt: skip
_OF_IMAGES = ("build", "history", "import", "load", "pull", "push", "save", "tag")

GROUPS = {
    "builder": Group("Manage builds", {"build": "build", "du": "builder du", "prune": "builder prune"}),
    "container": Group(
        "Manage containers",
        dict(zip(_OF_CONTAINERS, _OF_CONTAINERS, strict=True))
        | {"ls": "ps", "list": "ps", "ps": "ps", "remove": "rm"}
        | {"inspect": "container inspect", "prune": "container prune"},
    ),
    "image": Group(
        "Manage images",
        dict(zip(_OF_IMAGES, _OF_IMAGES, strict=True))
        | {"ls": "images", "list": "images", "rm": "rmi", "remove": "rmi"}
        | {"inspect": "image inspect", "prune": "image prune", "receive": "image receive", "send": "image send"},
    ),
    "network": Group(
        "Manage networks",
        {"connect": "network connect", "create": "network create", "disconnect": "network disconnect"}
        | {"inspect": "network inspect", "ls": "network ls", "list": "network ls", "prune": "network prune"}
        | {"rm": "network rm", "remove": "network rm"},
    ),
    "registry": Group(
        "Look into registries without a daemon, and serve one",
        {word: f"registry {word}" for word in ("copy", "inspect", "ls", "rm", "serve", "tags")} | {"list": "registry ls"},
    ),
    "system": Group("Manage lamina", {"df": "system df", "events": "events", "info": "info", "prune": "system prune"}),
    "volume": Group(
        "Manage volumes",
        {"create": "volume create", "inspect": "volume inspect", "ls": "volume ls", "list": "volume ls"}
        | {"prune": "volume prune", "rm": "volume rm", "remove": "volume rm"}
        | {"backup": "volume backup", "restore": "volume restore", "clone": "volume clone", "snapshot": "volume snapshot"},
    ),
}  # fmt: skip

# other words for the same, which help does not show
ALIASES = frozenset({"list", "ps", "remove"})
OWN = ("bootstrap", "daemon", "doctor", "verify")


def command_named(name: str) -> Command | None:
    """The command of a name in COMMANDS or GROUP_COMMANDS."""
    return COMMANDS.get(name) or GROUP_COMMANDS.get(name)
