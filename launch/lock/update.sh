#!/usr/bin/env bash
# Remakes py311.txt, py312.txt and compiled.txt from pyproject.toml. Needs uv on the PATH, or UV=/path/to/uv.
# The last JAX for Python 3.11 is older than the last one for 3.12 and later, hence two locks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# What has no wheels and needs a C compiler stands apart, so that a machine without one installs the rest.
compiled='/^[^ #]/ { apart = /^pycosat==/ }'
# The compiler for TPUs is there for one platform; the tests that need it are skipped elsewhere.
platform='/^libtpu==/ { sub(/ /, " ; sys_platform == '"'linux'"' and platform_machine == '"'x86_64'"' ") }'

for python in 3.11 3.12; do
    # No index is named in a lock: the machine that installs knows its own.
    lock=$("${UV:-uv}" pip compile pyproject.toml --extra dev --python-version "$python" --python-platform x86_64-manylinux_2_31 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --quiet \
        --custom-compile-command launch/lock/update.sh)
    awk "$platform $compiled !apart" <<< "$lock" > "launch/lock/py${python/./}.txt"
    awk "$compiled apart" <<< "$lock" > launch/lock/compiled.txt
done
