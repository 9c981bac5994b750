#!/usr/bin/env bash
# Every pip command line of the container images. The Dockerfile runs them, and deploy/check_image_build.sh runs the same
# ones without Docker. They work in the current directory with the `python` of the active virtual environment.
#
#   install.sh dependencies EXTRA [TORCH_INDEX]   all third-party packages of both pyproject.toml, EXTRA (cpu or gpu), otel and engines
#   install.sh wheel DIRECTORY                    build the wheels of the server and of its client into DIRECTORY
#   install.sh package DIRECTORY                  install the wheels found in DIRECTORY, and check that nothing is missing
set -euo pipefail

case "$1" in
dependencies)
    extra=$2
    torch_index=${3:-}

    # torch by itself from its own index, without what it depends on: that index also carries some, but not the pinned,
    # versions of other packages, which all come from the default index below.
    python -m pip install --constraint constraints.txt --no-deps ${torch_index:+--index-url "$torch_index"} torch

    # Read from the two pyproject.toml, and not installed with the project, so that Docker's cached layer holds until one
    # of them or constraints.txt changes. The client itself comes from the tree, never from a registry.
    requirements=$(mktemp)
    trap 'rm -f "$requirements"' EXIT
    python - "$extra" >"$requirements" <<'PYTHON'
import sys
import tomllib

def project(path):
    with open(path, "rb") as file:
        return tomllib.load(file)["project"]

server, client = project("pyproject.toml"), project("client/pyproject.toml")
others = [line for line in server["dependencies"] if not line.startswith(client["name"] + "==")]
extras = server["optional-dependencies"]
print(*others, *client["dependencies"], *extras[sys.argv[1]], *extras["otel"], *extras["engines"], sep="\n")
PYTHON
    python -m pip install --constraint constraints.txt --requirement "$requirements"
    ;;
wheel)
    python -m pip wheel --no-deps --wheel-dir "$2" ./client .
    ;;
package)
    python -m pip install --no-deps "$2"/*.whl
    python -m pip check
    ;;
*)
    echo "install.sh: unknown command: $1" >&2
    exit 2
    ;;
esac
