#!/bin/sh
# What a container does to its files, it does to a layer of its own.
echo "hello from $(. /etc/os-release; echo "$PRETTY_NAME") in container $(hostname)"
echo "written by the container" > /written-at-run-time
rm /etc/motd
echo "changed" >> /etc/hostname.example
touch /data/kept-in-a-volume
