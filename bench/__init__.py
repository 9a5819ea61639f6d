"""Benchmarks: lamina beside docker and podman, in one run on one machine, never as a test's assertion.

``rows`` says what is timed, ``engines`` starts lamina and its peers on roots of their own, ``corpus`` makes what they work on,
``host`` gives them a file system, ``report`` writes docs/benchmarks.md. ``make bench`` installs the peers and runs it.
"""
