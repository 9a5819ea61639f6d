"""The wire: what the daemon and its clients must agree on. Modules that the command line needs import next to nothing."""
