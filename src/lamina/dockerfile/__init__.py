"""The Dockerfile language: text becomes instructions. Pure; nothing here reads a file or knows what an image is.

``lines`` joins physical lines into logical ones, ``instructions`` gives each its form, ``parser`` groups them into stages, ``words``
expands variables, ``ignore`` reads .dockerignore, ``lint`` warns of what was probably not meant. Sources: the Dockerfile reference
(docs.docker.com) and BuildKit's behaviour.
"""

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.ignore import IgnoreRules
from lamina.dockerfile.parser import Dockerfile, Stage, parse

__all__ = ["Dockerfile", "DockerfileError", "IgnoreRules", "Stage", "parse"]
