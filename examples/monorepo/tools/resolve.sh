#!/bin/sh -e
# checks that every package has what it needs
for conf in packages/*/package.conf; do
    for name in $(sed -n "s/^needs=//p" "$conf"); do
        test -e "packages/$name/package.conf"
    done
done
