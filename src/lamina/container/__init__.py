"""Containers: the record, its life, its streams.

A *container* is the record of what is to run and how it went; its *process* is something that comes and goes. ``config`` holds the
words of docker's API that say what a container is, ``record`` what lamina keeps of one, ``store`` all of them; ``creation`` makes
one, ``lifecycle`` starts, stops and removes it, ``streams`` carries what goes in and out, ``logs`` reads what was said.
"""
