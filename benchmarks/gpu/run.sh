#!/usr/bin/env bash
# One stage of the checks on the GPU machine, from the repository's root: run.sh one|two|three. Logs go to $OUT.
# A stage ends by itself within its share of a quarter of an hour; a part that fails, hangs or finds no time left is
# named, and the others run. ONLY='verify|bench': those parts alone. A dry run without a GPU: README.md.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
stage=${1:-}
case $stage in
one) STAGE_SECONDS=120 ;;
two) STAGE_SECONDS=130 ;;
three) STAGE_SECONDS=340 ;;
*)
  echo "usage: run.sh one|two|three" >&2
  exit 2
  ;;
esac
STAGE_SECONDS=$((STAGE_SECONDS * ${SLOWER:-1})) # a dry run on a slow machine
cache=$HOME/.cache/diffood-gpu
export SITE=${SITE:-$cache/site} PKG=${PKG:-.gpu} OUT=${OUT:-$PWD/.gpu/out} WORK=${WORK:-$cache/work}
export PYTHON=${PYTHON:-python3} STANDIN=${STANDIN:-gpu}
BACKEND=${BACKEND:-onnxruntime-cuda} DEVICE=${DEVICE:-cuda}
LOG=$OUT/$stage.log # one file per stage, and one for each part that runs at the same time as others: few files come back
mkdir -p "$OUT" "$WORK"
: >"$LOG"
bash "$here/setup.sh" || echo "=== setup: FAILED, what was unpacked is used" | tee -a "$LOG"
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONPATH=$SITE:$PWD PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CUDA_MODULE_LOADING=LAZY

part() { # part SECONDS NAME COMMAND...: run it within its time limit and what is left of the stage; its end is shown
  local limit=$(($1 * ${SLOWER:-1})) name=$2 log=${PART_LOG:-$LOG} began=$SECONDS left=$((STAGE_SECONDS - SECONDS)) start code
  shift 2
  [[ $name =~ ${ONLY:-.} ]] || return
  if [ "$left" -lt 10 ]; then
    echo "=== $name: left out, $left s are left" | tee -a "$log"
    return
  fi
  echo "=== $name: $*" >>"$log"
  start=$(stat -c %s "$log")
  timeout -k 5 $((limit < left ? limit : left)) "$@" >>"$log" 2>&1
  code=$?
  [ "$code" -ne 124 ] || code="$code, out of time"
  echo "=== $name: exit code $code, $((SECONDS - began)) s"
  tail -c +$((start + 1)) "$log" | tail -n "${LINES_SHOWN:-25}" | cut -c1-200
  echo "--- $name: exit code $code, $((SECONDS - began)) s" >>"$log"
}

make_bundle() { # the shipped bundle with FP16 graphs and a calibration
  [ -e "$WORK/bundle" ] && return
  rm -rf "$WORK/bundle.new" && cp -r diffood/zoo/data/bundle "$WORK/bundle.new"
  "$PYTHON" -c "import tarfile; tarfile.open('$PKG/fp16.tar.xz').extractall('$WORK/bundle.new', filter='data')" &&
    mv "$WORK/bundle.new" "$WORK/bundle"
}

unpack_images() {
  "$PYTHON" -c "
from pathlib import Path
from diffood.zoo.images import unpack_set
for name, count in (('fashion-test', ${COUNT:-1000}), ('digits', 300), ('textures', 300)):
    folder = Path('$WORK/images') / name
    if not folder.exists():
        unpack_set(name, folder, count)"
}

correctness() { # is it right, the verdicts first
  LINES_SHOWN=4 part 30 machine bash -c '
    "$PYTHON" -c "import torch, numpy, onnx; print(torch.__version__, numpy.__version__, onnx.__version__)"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader; nproc'
  part 40 doctor "$PYTHON" -m diffood doctor
  unpack_images >>"$LOG" 2>&1
  LINES_SHOWN=12 part 120 verify-parity "$PYTHON" -m diffood verify "$BUNDLE" --backend "$BACKEND" --batch 64 \
    --images "$WORK/images/fashion-test" --ood "digits=$WORK/images/digits" --ood "textures=$WORK/images/textures"
  LINES_SHOWN=6 part 40 verify-shipped "$PYTHON" -m diffood verify diffood/zoo/data/bundle --backend "$BACKEND"
  part 60 nodes "$PYTHON" "$here/nodes.py" "$BUNDLE" $([ "$DEVICE" = cpu ] && echo --cpu)
}

contracts() { # what the tests promise on this card
  local tests="$PYTHON -m pytest -q -p no:cacheprovider -p pytest_timeout -rs"
  # alone on the card: it looks at the memory in use
  part 120 devices bash -c "$tests tests/runtime/test_devices.py"
  PART_LOG=$OUT/two-contract.log part 110 contract bash -c \
    "$tests tests/runtime/sessions -m 'not slow' -k '(${CONTRACT:-onnxruntime-cuda or backends or library}) and not latent'" &
  PYTHONPATH=$here:$PYTHONPATH PART_LOG=$OUT/two-standin.log LINES_SHOWN=12 part 110 standin bash -c \
    "$tests -p standin tests/runtime/sessions/test_session_contract.py -k 'tensorrt-fp and not latent'" &
  wait
}

make_large() { # the large UNet and its bundle, with their weights
  [ -e "$WORK/large/bundle/manifest.json" ] && return
  rm -rf "$WORK/large" "$WORK/packed" && mkdir "$WORK/packed"
  "$PYTHON" -c "import tarfile; tarfile.open('$PKG/large.tar.xz').extractall('$WORK/packed', filter='data')" &&
    "$PYTHON" "$here/large_bundle.py" unpack "$WORK/packed" "$WORK/large"
}

speed() { # images per second and milliseconds of an image first, then calls of a stage
  make_large >>"$LOG" 2>&1 || echo "=== large: FAILED, left out" | tee -a "$LOG"
  part 90 bench-zoo bash -c "\"$PYTHON\" -m diffood bench \"$BUNDLE\" --backend $BACKEND --plan default --plan fast \
    --batch ${BATCH:-64} --seconds ${SECONDS_EACH:-2} --rounds 3 --threads ${THREADS:-0} --no-compile --no-memory --json >\"$OUT/bench-zoo.json\" &&
    \"$PYTHON\" \"$here/summary.py\" \"$OUT/bench-zoo.json\""
  [ -e "$WORK/large/bundle/manifest.json" ] && part 100 bench-large bash -c "\"$PYTHON\" -m diffood bench \
    \"$WORK/large/bundle\" --unet \"$WORK/large/unet\" --scheduler \"$WORK/large/scheduler\" \
    --classifier \"$WORK/large/small.py:small\" --images \"$WORK/large/images\" --backend $BACKEND --plan default --plan fast \
    --batch ${BATCH:-64} --seconds ${SECONDS_EACH:-2} --rounds 3 --threads ${THREADS:-0} --no-compile --no-memory --json >\"$OUT/bench-large.json\" &&
    \"$PYTHON\" \"$here/summary.py\" \"$OUT/bench-large.json\""
  part 30 throughput "$PYTHON" "$here/throughput.py" "$BUNDLE" "$BACKEND"
  LINES_SHOWN=60 part 100 stages-zoo "$PYTHON" "$here/stages.py" "$BUNDLE" ${VARIANTS---variants} --images "${IMAGES:-8,512,64}" \
    --compile "${COMPILE-64}" --device "$DEVICE" --threads ${THREADS:-0} --json "$OUT/stages-zoo.json"
  [ -e "$WORK/large/bundle/manifest.json" ] && LINES_SHOWN=60 part 120 stages-large "$PYTHON" "$here/stages.py" \
    "$WORK/large/bundle" --unet "$WORK/large/unet" --scheduler "$WORK/large/scheduler" \
    --classifier "$WORK/large/small.py:small" ${VARIANTS---variants} --images "${IMAGES_LARGE:-8,64}" --compile "${COMPILE_LARGE-64}" \
    --device "$DEVICE" --threads ${THREADS:-0} --json "$OUT/stages-large.json"
  part 30 timeline "$PYTHON" "$here/timeline.py" "$BUNDLE" "$BACKEND" fp16 ${BATCH:-64}
  part 20 clocks nvidia-smi --query-gpu=name,clocks.sm,temperature.gpu,power.draw,memory.used --format=csv,noheader
}

BUNDLE=$WORK/bundle
make_bundle || {
  echo "=== bundle: FAILED, the shipped one is used: FP32 alone, not calibrated" | tee -a "$LOG"
  BUNDLE=diffood/zoo/data/bundle
}
case $stage in
one) correctness ;;
two) contracts ;;
three) speed ;;
esac
echo "=== stage $stage: $SECONDS of $STAGE_SECONDS s"
