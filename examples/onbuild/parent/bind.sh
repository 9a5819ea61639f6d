#!/bin/sh -e
echo "by $AUTHOR"
for page in "$@"; do
    printf '%s: ' "${page%.txt}"
    cat "$page"
done
