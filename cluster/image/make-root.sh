#!/bin/sh
# Writes the root file system of a small Debian as a tar archive to standard output; progress goes to standard error.
# Usage: make-root.sh SUITE MIRROR, as root, with debootstrap installed. Nothing is left behind, whatever happens.
set -eu

suite=$1
mirror=$2
root=$(mktemp -d "${TMPDIR:-/var/tmp}/dmq-root.XXXXXXXX")
child=

clean_up() {
    trap '' HUP INT TERM PIPE
    # The child leads a group of its own, and what it started ends with it.
    if [ -n "$child" ]; then
        kill -KILL "-$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    # debootstrap may have been stopped while these were mounted.
    umount "$root/proc" "$root/sys" 2>/dev/null || true
    rm -rf --one-file-system "$root"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 141' PIPE

# In the background and waited for: a shell hears signals while it waits, but not while a command runs.
setsid debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >&2 &
child=$!
wait "$child"
setsid tar --numeric-owner -C "$root" -c . &
child=$!
wait "$child"
child=
