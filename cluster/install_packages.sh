#!/bin/sh
# Installs Debian packages as root without letting RabbitMQ's or epmd's service start or be enabled:
#
#     sudo sh install_packages.sh rabbitmq-server
#
# Services that are here already are left alone. apt's output and its status lines go to stdout.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
policy=/usr/sbin/policy-rc.d
aside=/usr/sbin/policy-rc.d.before-dmq
marker='Written by dmq while it installs packages'

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

restore_policy() {
    if grep -qs "$marker" "$policy"; then rm -f "$policy"; fi
    if [ -e "$aside" ] || [ -L "$aside" ]; then mv -f "$aside" "$policy"; fi
}

# Once this process is gone the policy denies nothing, so that even a killed run does no harm.
deny_services() {
    if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$aside"; fi
    cat >"$policy.new" <<END
#!/bin/sh
# $marker
if kill -0 $$ 2>/dev/null; then
    for word in "\$@"; do
        case "\$word" in rabbitmq-server | rabbitmq-server.service | epmd | epmd.*) exit 101 ;; esac
    done
fi
[ -x $aside ] && exec $aside "\$@"
exit 0
END
    chmod 755 "$policy.new"
    mv "$policy.new" "$policy"
}

# The status lines need a descriptor of their own: apt closes it to the packages' scripts, which fail without stdout.
apt() {
    apt-get -q -o APT::Status-Fd=3 -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 \
        -o Acquire::http::Timeout=20 -o Acquire::Retries=2 "$@" </dev/null 3>&1
}

[ "$#" -gt 0 ] || { echo "usage: $0 PACKAGE..." >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "$0 needs root" >&2; exit 1; }

exec 9>/run/dmq-install.lock
flock -w 300 9
trap 'restore_policy; rm -f "$policy.new"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fresh=
installed rabbitmq-server || fresh='rabbitmq-server.service'
installed erlang-base || fresh="$fresh epmd.service epmd.socket"

restore_policy
deny_services
# Package lists may be old or absent: only then is an update worth its time.
apt install -y --no-install-recommends "$@" || {
    apt update
    apt install -y --no-install-recommends "$@"
}

for unit in $fresh; do
    if command -v systemctl >/dev/null; then
        systemctl disable "$unit" >/dev/null 2>&1 || true
    elif [ "$unit" = rabbitmq-server.service ] && [ -x /etc/init.d/rabbitmq-server ]; then
        update-rc.d rabbitmq-server disable >/dev/null 2>&1 || true
    fi
done
