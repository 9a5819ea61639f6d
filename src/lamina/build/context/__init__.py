"""What a build is given: contexts that are sent, that lie here, that have names; all of them are sources of files."""
