#!/bin/sh
# Starts three RabbitMQ nodes with compose and returns when they are one cluster. A second call changes nothing.
# DMQ_IMAGE names an image to use; DMQ_MIRROR a Debian mirror; DMQ_AMQP_1.. and DMQ_MANAGEMENT_1.. other ports.
set -eu
. "$(dirname "$0")/compose-common.sh"

here() { docker image inspect "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

build() {
    mirror=${DMQ_MIRROR:-http://deb.debian.org/debian}
    if ! here dmq-base:trixie; then
        PATH=$PATH:/usr/sbin command -v debootstrap >/dev/null ||
            fail "no image registry answers, and debootstrap is not installed. Run: sudo apt-get install debootstrap"
        archive=$(mktemp "${TMPDIR:-/var/tmp}/dmq-root.XXXXXXXX")
        trap 'rm -f "$archive"' EXIT
        as_root sh "$folder/image/make-root.sh" trixie "$mirror" >"$archive"
        docker import - dmq-base:trixie <"$archive" >/dev/null
        rm -f "$archive"
    fi
    DOCKER_BUILDKIT=0 docker build --force-rm -t "$1" --build-arg BASE=dmq-base:trixie --build-arg SUITE=forky \
        --build-arg MIRROR="$mirror" "$folder/image"
}

if [ -z "${DMQ_IMAGE:-}" ]; then
    official=rabbitmq:4-management
    own=dmq-rabbitmq:4.3-compose
    if here "$official"; then
        DMQ_IMAGE=$official
    elif here "$own"; then
        DMQ_IMAGE=$own
    elif docker pull "$official"; then
        DMQ_IMAGE=$official
    else
        echo "no image registry answers; the image is built here from Debian's packages" >&2
        build "$own"
        DMQ_IMAGE=$own
    fi
fi
export DMQ_IMAGE

if [ ! -s "$DMQ_COOKIE_FILE" ]; then
    (
        umask 077
        mkdir -p "$state"
        head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$DMQ_COOKIE_FILE.new"
        mv "$DMQ_COOKIE_FILE.new" "$DMQ_COOKIE_FILE"
    )
fi

compose up -d
left=60
until compose exec -T -u rabbitmq node1 rabbitmqctl -q await_online_nodes 3 --timeout 30 >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "the nodes did not become one cluster; look at: docker logs dmq-compose_node1_1"
    sleep 1
done
echo "RabbitMQ serves on 127.0.0.1:${DMQ_AMQP_1:-5672}, ${DMQ_AMQP_2:-5673} and ${DMQ_AMQP_3:-5674} (guest/guest)."
