names() {
    cat /repo/packages/*/package.conf | sed -n "s/^name=//p" | sort | xargs
}
