#!/bin/sh
# All that Debian's package does differently from the official image: the server's own script is run instead of
# Debian's wrapper, which would hide its log in files, and it runs as rabbitmq even if the container begins as root.
set -eu

if [ "${1:-}" = rabbitmq-server ]; then
    shift
    set -- /usr/lib/rabbitmq/bin/rabbitmq-server "$@"
    # The script then replaces itself by the Erlang machine, so that this process, PID 1, is the server and hears signals.
    export RUNNING_UNDER_SYSTEMD=true
    if [ "$(id -u)" = 0 ]; then
        find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq:rabbitmq {} +
        set -- setpriv --reuid rabbitmq --regid rabbitmq --init-groups "$@"
    fi
fi
exec "$@"
