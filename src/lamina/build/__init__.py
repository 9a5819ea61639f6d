"""Build: a Dockerfile and its context become an image.

``builder`` receives a build, ``solver`` carries out the stages that the targets need, each by a ``stage``, whose instructions become
``steps``: an outcome found in ``cache`` or made by ``run`` or ``copy``, and the image that it makes. ``config`` changes the JSON.
``context`` is what the client gives, ``remote`` what is fetched, ``bases`` what a stage stands on.
"""
