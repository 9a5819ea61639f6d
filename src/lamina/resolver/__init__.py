"""The resolver: a process that answers for the names of containers, at 127.0.0.11 in each of their networks' namespaces.

It is not the daemon's child and goes on without it. The daemon tells it by ``client`` what there is (``messages``); ``server`` is the
process, ``zone`` knows the names, ``answers`` makes DNS messages of them, ``listeners`` are its sockets inside the containers and
``forwarding`` asks the host's resolvers for all other names.
"""
