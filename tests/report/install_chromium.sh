#!/usr/bin/env bash
# Install Debian's Chromium for the tests of the report; ends with an error where that is not possible.
set -euo pipefail
command -v chromium >/dev/null && exit 0
[ "$(id -u)" = 0 ] || { echo "chromium is not installed and only root can install it" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "chromium is not installed and there is no apt-get" >&2; exit 1; }
exec 9>/run/inverseflow-chromium.lock && flock 9 # one process installs, the others find it installed
command -v chromium >/dev/null && exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium >/dev/null
command -v chromium >/dev/null
