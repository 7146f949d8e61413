#!/bin/sh
# Removes the nodes that set-up.sh made, with their networks, their data and their cookie. The image stays.
set -eu
. "$(dirname "$0")/compose-common.sh"

compose down --volumes --remove-orphans --timeout 30
rm -rf "$state"
