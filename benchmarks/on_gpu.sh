#!/usr/bin/env bash
# Everything that only a GPU can show, in one command that ends within eight minutes.
#
#     benchmarks/on_gpu.sh                  # on the machine with the GPU: torch for CUDA and transformers are there
#     benchmarks/on_gpu.sh --wheels .whl    # before, where there is a network: fetch what such a machine may lack
#     benchmarks/on_gpu.sh --tiny           # rehearsal on a CPU, small sizes, two minutes
#
# Each part has a limit of its own and runs whatever became of the others, the most telling ones first. Results:
# on_gpu_<hardware>_<date>.md in OUT (this folder), row by row as they come. No network is needed.
#
#   OUT     folder of the results          PYTHON        the interpreter (python3)
#   WHEELS  folder of wheels (.whl)        PYTHON_TAG    version that wheels are fetched for (3.12)
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} WHEELS=${WHEELS:-.whl} OUT=${OUT:-benchmarks}

# What this project imports for tests and benchmarks and a plain machine with torch may lack, by exact pins.
PACKAGES="transformers trl datasets peft accelerate pydantic pydantic_core annotated-types typing-inspection
  typing_extensions dill multiprocess xxhash fsspec"

fetch() {  # the folder
  local pins=() platforms=() name
  for name in $PACKAGES; do
    pins+=("$(grep -i "^$name==" constraints.txt)") || { echo "$name has no pin in constraints.txt" >&2; return 2; }
  done
  for name in manylinux_2_28 manylinux_2_17 manylinux2014 manylinux1; do platforms+=(--platform "${name}_x86_64"); done
  "$PYTHON" -m pip download --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
    --python-version "${PYTHON_TAG:-3.12}" "${platforms[@]}" -d "$1" "${pins[@]}"
}

TINY=() DEVICE=cuda SELECT="" TURNS_S=55
case "${1:-}" in
  --wheels) fetch "${2:-.whl}"; exit ;;
  --tiny) TINY=(--tiny) DEVICE=cpu TURNS_S=0 SELECT="llava and (capture or step) and not next and not onevision" ;;
  "") ;;
  *) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

failed=0 begun=$SECONDS
part() {  # its limit in seconds, then the command
  local limit=$1 rc=0; shift
  echo "== $* (at most $limit s)"
  timeout -k 5 "$limit" "$@" || rc=$?
  ((rc == 0)) || { echo "== ended with $rc after $((SECONDS - begun)) s in all: $*"; failed=1; }
}
measure() { part "$1" "$PYTHON" -u -m benchmarks.on_gpu "${@:2}" --device "$DEVICE" --out "$OUT" ${TINY[@]+"${TINY[@]}"}; }

mkdir -p "$OUT"
export PYTHONPATH=$PWD HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
if compgen -G "$WHEELS/*.whl" >/dev/null; then
  site=$(mktemp -d) && trap 'rm -rf "$site"' EXIT
  part 30 "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
    --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH=$site:$PYTHONPATH
fi
((${#TINY[@]})) || nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader

measure 130 tests --select "$SELECT"
measure 70 step --model llava --seconds $TURNS_S
measure 85 decode --model llava --seconds $TURNS_S
measure 70 step --model qwen --seconds $TURNS_S
measure 85 decode --model qwen --seconds $TURNS_S
echo "== $((SECONDS - begun)) s in all"
exit $failed
