"""From a description of a process to the process: OCI bundle, runtime, monitor.

``settings`` says what is wanted in words of our own, ``spec`` turns that into the runtime specification's config.json with docker's
defaults, ``oci_runtime`` drives crun or runc, ``monitor`` puts conmon between a container and the daemon, so that the container, its
log and its exit code outlive the daemon.
"""
