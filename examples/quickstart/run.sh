#!/bin/sh
# What a container does to its files it does to a layer of its own, and to its volumes.
. /etc/os-release
echo "hello from $PRETTY_NAME, container $(hostname)"
echo "written by the container" > /written-at-run-time
echo "# changed" >> /etc/profile
rm /etc/issue.net
touch /data/kept-in-a-volume
