"""Build: a Dockerfile and its context become an image.

``builder`` goes through the stages that the target needs; ``stage`` carries out instructions one after another, each making an image
from the one before it; ``copying`` writes a COPY's or ADD's layer straight from the source's tar, ``running`` runs a RUN's process and
takes the difference; ``config`` changes the JSON; ``cache`` knows what was done before. ``context`` is what the client sent.

``remote`` tells what a source's text names; ``download`` has what is behind a URL (``transfer`` is one GET), ``git`` the files of a
repository (``git_command`` runs git), and ``credentials`` knows which secrets a server is told.
"""
