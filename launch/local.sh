#!/usr/bin/env bash
# Runs a mode of rstar, or the tests, on a machine that has nothing but Python 3.11, 3.12 or 3.13.
# The first call installs the locked packages into .venv beside pyproject.toml; later calls see its stamp and start.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/rstar-stamp
uv_version=0.13.8

say() { echo "local.sh: $*" >&2; }

usage() {
    cat >&2 <<'EOF'
usage: launch/local.sh MODE [flags]          runs `rstar MODE flags`, for example: evolve --run_dir=runs/first
       launch/local.sh test [pytest flags]   runs the tests
The environment: PYTHON=/path/to/python chooses the interpreter of a new .venv.
EOF
    exit 2
}

suits() { "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' > /dev/null 2>&1; }

choose_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        elif [[ $candidate == "${PYTHON:-}" ]]; then
            break # A named interpreter is not replaced by another one.
        fi
    done
    say "needs Python 3.11, 3.12 or 3.13 with venv (${PYTHON:+PYTHON=$PYTHON is none of them; }set PYTHON=/path/to/python)"
    exit 1
}

python_version() { sed -n 's/^version\(_info\)\{0,1\} *= *//p' "$venv/pyvenv.cfg" 2> /dev/null; }

lock_file() {
    case $(python_version) in
        3.11.*) echo "$root/launch/lock/py311.txt" ;;
        3.12.* | 3.13.*) echo "$root/launch/lock/py312.txt" ;;
        *) say "$venv holds Python $(python_version), not 3.11, 3.12 or 3.13: remove it" && exit 1 ;;
    esac
}

# What an install depends on. The folder is part of it: an editable install and the scripts of a .venv name it.
fingerprint() {
    { echo "$root" "$(python_version)" && cat "$(lock_file)" "$root/pyproject.toml"; } |
        if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi
}

installed() { [[ -x $venv/bin/python && -f $stamp && $(< "$stamp") == "$(fingerprint)" ]]; }

# uv is several times faster than pip, but reads none of pip's settings: where only pip knows the index, pip does it.
add() { "$venv/bin/uv" pip install --python "$venv/bin/python" "$@" >&2 || "$venv/bin/python" -m pip install "$@" >&2; }

install() {
    local python lock
    rm -f "$stamp"
    if ! "$venv/bin/python" -c '' 2> /dev/null; then
        python=$(choose_python)
        "$python" -m venv "$venv" >&2
    fi
    "$venv/bin/python" -m pip --version > /dev/null 2>&1 || "$venv/bin/python" -m ensurepip >&2
    lock=$(lock_file)
    say "installs ${lock##*/} into $venv, once"
    "$venv/bin/python" -m pip install --quiet "uv==$uv_version" >&2 || say "goes on without uv"
    add --no-deps --requirement "$lock"
    # reasoning_gym asks for pycosat, which comes as C source and serves one kind of its puzzles.
    add --no-deps --requirement "$root/launch/lock/compiled.txt" 2> /dev/null ||
        say "goes on without pycosat, which needs a C compiler and the headers of Python"
    add --no-deps --editable "$root"
    # Last, and whole or not at all: an interrupted install is repeated.
    fingerprint > "$stamp.new"
    mv "$stamp.new" "$stamp"
}

[[ $# -gt 0 ]] || usage
mode=$1
shift

if ! installed; then
    mkdir -p "$venv"
    # Of several callers one installs and the others wait for it. macOS has no flock.
    (
        ! command -v flock > /dev/null || flock 9
        if ! installed; then install; fi
    ) 9> "$venv/rstar-lock"
fi

# Without this JAX looks for a TPU, since its compiler is installed, and warns at length that there is none.
[[ -e /dev/accel0 || -d /dev/vfio ]] || export JAX_PLATFORMS="${JAX_PLATFORMS-cpu}"

if [[ $mode != test ]]; then
    exec "$venv/bin/rstar" "$mode" "$@"
fi

run_tests() { "$venv/bin/python" -m pytest --quiet --rootdir "$root" --config-file "$root/pyproject.toml" "$@"; }

for argument in "$@"; do
    # A file or a test of a file says what to run instead of everything.
    if [[ $argument != -* && ${argument%%::*} == *.py || -d $argument ]]; then
        run_tests "$@"
        exit
    fi
done
# In as many processes as there are cores: most of a test is a compilation, which keeps one busy. Those of the verifier
# say how many seconds something may take, so they have the machine to themselves.
status=5 # pytest's word for no tests, which is right only if neither part has some
part() {
    local code=0
    run_tests "$@" || code=$?
    if [[ $status == 5 || ($status == 0 && $code != 5) ]]; then status=$code; fi
}
part "$root/tests/verifier" "$@"
[[ $status == 2 ]] || part "$root/tests" --ignore="$root/tests/verifier" --numprocesses=auto --dist=worksteal "$@"
exit "$status"
