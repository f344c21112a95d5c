#!/usr/bin/env bash
# One stage of the checks on the GPU machine, from the repository's root: run.sh one|two|three. Logs go to $OUT.
# A dry run without a GPU: BACKEND=onnxruntime-cpu DEVICE=cpu STANDIN=host run.sh one
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$HOME/.cache/diffood-gpu
export SITE=${SITE:-$cache/site} PKG=${PKG:-.gpu} OUT=${OUT:-$PWD/.gpu/out} WORK=${WORK:-$cache/work}
export PYTHON=${PYTHON:-python3} STANDIN=${STANDIN:-gpu}
BACKEND=${BACKEND:-onnxruntime-cuda} DEVICE=${DEVICE:-cuda}
mkdir -p "$OUT" "$WORK"
bash "$here/setup.sh" || exit 1
export PYTHONPATH=$SITE:$PWD PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CUDA_MODULE_LOADING=LAZY

part() { # part SECONDS NAME COMMAND...: run it with a time limit; the whole output goes to $OUT/NAME.log, its end here
  local limit=$1 name=$2 began=$SECONDS
  shift 2
  timeout -k 5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  local code=$?
  echo "=== $name: exit code $code, $((SECONDS - began)) s"
  tail -n "${LINES_SHOWN:-25}" "$OUT/$name.log" | cut -c1-220
}

make_bundle() {
  [ -e "$WORK/bundle" ] && return
  mkdir -p "$WORK/fp16"
  "$PYTHON" -c "import tarfile; tarfile.open('$PKG/fp16.tar.xz').extractall('$WORK/fp16', filter='data')"
  "$PYTHON" "$here/fp16_parts.py" join "$WORK/fp16" "$WORK/bundle.new" && mv "$WORK/bundle.new" "$WORK/bundle"
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

correctness() { # does it run, is it right
  part 30 machine bash -c 'nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader; nproc
    "$PYTHON" -c "import torch, numpy, onnx; print(torch.__version__, numpy.__version__, onnx.__version__)"'
  part 40 doctor "$PYTHON" -m diffood doctor
  part 90 nodes "$PYTHON" "$here/nodes.py" "$WORK/bundle" $([ "$DEVICE" = cpu ] && echo --cpu)
  LINES_SHOWN=12 part 60 verify-shipped "$PYTHON" -m diffood verify diffood/zoo/data/bundle --backend "$BACKEND"
  unpack_images
  LINES_SHOWN=12 part 150 verify-parity "$PYTHON" -m diffood verify "$WORK/bundle" --backend "$BACKEND" --batch 64 \
    --images "$WORK/images/fashion-test" --ood "digits=$WORK/images/digits" --ood "textures=$WORK/images/textures"
}

contracts() { # sessions on the CUDA provider and on the stand-in for TensorRT, while a large bundle is exported
  [ -e "$WORK/large" ] || timeout 185 "$PYTHON" "$here/large_bundle.py" "$WORK/large" ${WIDTH:-} >"$OUT/large.log" 2>&1 &
  local tests="$PYTHON -m pytest -q -p no:cacheprovider -m 'not slow'"
  part 185 contract bash -c "$tests tests/runtime/sessions -rs -k '${CONTRACT:-onnxruntime-cuda or backends or library}'" \
    >"$OUT/1" &
  PYTHONPATH=$here:$PYTHONPATH part 185 contract-standin bash -c \
    "$tests -p standin tests/runtime/sessions/test_session_contract.py -k tensorrt-fp" >"$OUT/2" &
  part 120 cli bash -c "$tests tests/cli/test_doctor.py tests/cli/test_cli_verify.py" >"$OUT/3" &
  wait
  cat "$OUT/1" "$OUT/2" "$OUT/3"
  rm -f "$OUT/1" "$OUT/2" "$OUT/3"
  echo "=== large" && tail -n 4 "$OUT/large.log"
}

speed() {
  part 60 throughput "$PYTHON" "$here/throughput.py" "$WORK/bundle" "$BACKEND,onnxruntime-cpu"
  LINES_SHOWN=60 part 110 steps-zoo "$PYTHON" "$here/steps.py" "$WORK/bundle" diffood/zoo/data/weights/unet --variants \
    --rows "${ROWS:-8,64,512}" --compile "${COMPILE-64}" --device "$DEVICE" --json "$OUT/steps-zoo.json"
  [ -e "$WORK/large/bundle/manifest.json" ] && LINES_SHOWN=60 part 130 steps-large "$PYTHON" "$here/steps.py" \
    "$WORK/large/bundle" "$WORK/large/unet" --variants --rows "${ROWS_LARGE:-8,64,256}" --compile "${COMPILE_LARGE-64}" \
    --device "$DEVICE" --json "$OUT/steps-large.json"
  part 20 clocks nvidia-smi --query-gpu=name,clocks.sm,temperature.gpu,power.draw,memory.used --format=csv,noheader
}

make_bundle
case ${1:-} in
one) correctness ;;
two) contracts ;;
three) speed ;;
*)
  echo "usage: run.sh one|two|three" >&2
  exit 2
  ;;
esac
