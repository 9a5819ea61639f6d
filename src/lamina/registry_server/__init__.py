"""A registry's server (OCI distribution-spec 1.1): blobs as files named by their digest, all else in SQLite.

    main ─processes→ application ─routes→ blobs, uploads, manifests ─→ storage (files), catalog (rows)
                                                                     └─ maintenance (garbage, retention, scrubbing)

Several processes may share one storage: a row decides what exists, and a file changes its name only under the database's write lock.
"""
