#!/usr/bin/env bash
# The Dockerfile's cpu target without Docker: the same pip command lines (deploy/install.sh), over a copy of the files that
# the Dockerfile copies and no others, into a new virtual environment; then the installed service is started with the
# image's settings, must become ready, pass the image's health check and stop cleanly on SIGTERM. It catches what breaks an
# image and no test in the working tree sees: a package or data file missing from the wheel, a dependency not declared, a
# version that constraints.txt makes impossible.
#
#   deploy/check_image_build.sh
#
# Needs Python 3.11, 3 GB under TMPDIR and the package indexes that pip is set up for. CPU_TORCH_INDEX in the environment
# stands for the build argument of that name; empty means pip's default index.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dockerfile=$repository/Dockerfile
ready_within=180
stopped_within=30 # docker-compose.yml: stop_grace_period

work=$(mktemp -d)
service=
clean_up() {
    if [[ -n $service ]]; then kill -KILL "$service" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap clean_up EXIT

fail() {
    echo "check_image_build: $1" >&2
    if [[ -f $work/log ]]; then tail -n 50 "$work/log" >&2; fi
    exit 1
}

# From the Dockerfile, so that there is no second list to keep: what COPY takes from the build context, the default index
# of the CPU build of torch, and the health check.
mapfile -t copied < <(
    awk '$1 == "COPY" && $2 !~ /^--from/ { for (i = 2; i < NF; i++) print $i }' "$dockerfile"
)
default_index=$(sed -n 's/^ARG CPU_TORCH_INDEX=//p' "$dockerfile")
health_check=$(sed -n '/^HEALTHCHECK/,/CMD/ s/^ *CMD //p' "$dockerfile")
[[ ${#copied[@]} -gt 0 && -n $default_index && -n $health_check ]] || fail "the Dockerfile is not as expected"

echo "== virtual environment"
"${PYTHON:-python3.11}" -m venv "$work/venv"
export PATH=$work/venv/bin:$PATH
mkdir "$work/build" "$work/app" "$work/data" "$work/home"
# One by one, as the Dockerfile does: a file is copied before the folder that it is in.
for path in "${copied[@]}"; do (cd "$repository" && cp -r --parents "$path" "$work/build"); done
find "$work/build" -name __pycache__ -prune -exec rm -rf {} + # as .dockerignore has it

echo "== deploy/install.sh"
cd "$work/build"
bash deploy/install.sh dependencies cpu "${CPU_TORCH_INDEX-$default_index}"
bash deploy/install.sh wheel "$work/dist"
bash deploy/install.sh package "$work/dist"

echo "== python -m service"
# As in the image: an empty working directory, so that what runs is what was installed, and none of the caller's variables.
cd "$work/app"
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as_in_image=(env -i PATH="$PATH" HOME="$work/home" QRAG_HOST=127.0.0.1 QRAG_PORT="$port" QRAG_DATA_DIR="$work/data"
    QRAG_DEVICE=cpu HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1)
"${as_in_image[@]}" python -m service >"$work/log" 2>&1 &
service=$!

running() { kill -0 "$service" 2>/dev/null; }
ready() {
    python - "http://127.0.0.1:$port/readyz" 2>/dev/null <<'PYTHON'
import sys
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(sys.argv[1], timeout=5)
PYTHON
}

deadline=$((SECONDS + ready_within))
until ready; do
    running || fail "the service ended before it was ready"
    ((SECONDS < deadline)) || fail "the service was not ready within $ready_within s"
    sleep 0.5
done
"${as_in_image[@]}" python -c 'import json, subprocess, sys; sys.exit(subprocess.call(json.loads(sys.argv[1])))' \
    "$health_check" || fail "the image's health check fails on a service that is ready"

echo "== SIGTERM"
kill -TERM "$service"
deadline=$((SECONDS + stopped_within))
while running; do
    ((SECONDS < deadline)) || fail "the service still ran $stopped_within s after SIGTERM"
    sleep 0.1
done
status=0
wait "$service" || status=$?
service=
[[ $status -eq 0 ]] || fail "the service ended with status $status after SIGTERM"

echo "check_image_build: passed"
