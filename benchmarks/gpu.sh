#!/usr/bin/env bash
# What scat_zoo does on the GPU of this machine, checked and timed against kymatio in at most eight minutes.
#
#     benchmarks/gpu.sh [WHEELS] [options of bench_gpu.py, such as --device cpu --quick]
#
# Needs python3 with torch, torchvision and what they come with, and no network: WHEELS is a folder with wheels of what
# is missing there (timm, kymatio, appdirs, configparser), which is put beside it for the time of the run. Everything is
# printed as it goes, and the tables once more at the end.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --target "$site" "$1"/*.whl 2>&1 || echo "could not install the wheels in $1"
    shift
fi
export PYTHONPATH="$site:$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python3 "$root/benchmarks/bench_gpu.py" "$@" 2>&1
