# Shared by set-up.sh and tear-down.sh: where things are, and which compose this machine has.

folder=$(cd "$(dirname "$0")" && pwd)
state=${DMQ_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/dmq}/compose
export DMQ_COOKIE_FILE="$state/cookie"

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

command -v docker >/dev/null || fail "Docker is not installed. Install it (Debian: sudo apt-get install docker.io docker-compose)."
docker info >/dev/null 2>&1 || fail "no Docker engine answers. Start it, or let this user use it: sudo usermod -aG docker \$USER."

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p dmq-compose -f "$folder/compose.yaml" "$@"
    elif command -v docker-compose >/dev/null; then
        docker-compose -p dmq-compose -f "$folder/compose.yaml" "$@"
    else
        fail "compose is not installed. Install it (Debian: sudo apt-get install docker-compose)."
    fi
}
