#!/bin/sh -e
diary=/var/lib/diary
case $1 in
read) cat "$diary"/*.txt ;;
write) shift && echo "$(id -un): $*" > "$diary/$(ls "$diary" | wc -l).txt" ;;
who) id && cat ~/who-built && stat -c '%U:%G %a %n' . diary.sh "$diary" "$diary/first.txt" ;;
esac
