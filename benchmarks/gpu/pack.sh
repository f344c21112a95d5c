#!/usr/bin/env bash
# On a machine with package registries: gather in .gpu/ what the GPU machine lacks. Run: pack.sh [BUNDLE [LARGE]].
# BUNDLE: the shipped one with FP16 graphs, calibrated in FP32 on the CPU; LARGE: what `large_bundle.py make` wrote. They
# are made here without (needs the extra `export`; LARGE takes ten minutes).
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
here=benchmarks/gpu shipped=diffood/zoo/data/bundle bin=${VENV:-.venv}/bin place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
MOST_MIB=60  # tree and .gpu together
UNUSED=(diffood/zoo/data/materials 'diffood/zoo/data/images/surfaces-*' diffood/zoo/data/images/photos-colour.npz)

# Kernels of language models, which no graph of ours uses.
LANGUAGE='flash|MoeFC|fpA_intB|fpA_INTB|moe|Moe|MoE|3llm|paged|GemmUniversal|device_kernel|attention_kernel_batched'
LANGUAGE+='|masked_multihead|MatMulNBits|blkq4|GemmFpAIntB|kernel_mha|GatedDeltaNet|MatMulFloat4|MatMulFloat8b'
LANGUAGE+='|LinearAttentionDecode'

get() { # get FOLDER REQUIREMENT...: wheels for Python 3.12 on x86-64 Linux
  "$bin/python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$1" "${@:2}"
}

rm -rf .gpu && mkdir .gpu
get .gpu pytest==9.2.0 pluggy pydantic==2.14.4 pydantic-core==2.50.5 annotated-types typing-inspection typing-extensions importlib-metadata
get "$place" onnxruntime-gpu==1.30.0 diffusers==0.42.1
"$bin/python" -m venv "$place/venv" && "$place/venv/bin/pip" install -q zstandard
mkdir "$place/ort" "$place/diffusers"
"$bin/python" -m zipfile -e "$place"/onnxruntime_gpu-*.whl "$place/ort"
"$bin/python" -m zipfile -e "$place"/diffusers-*.whl "$place/diffusers"
(cd "$place/ort/onnxruntime" && rm -rf transformers tools datasets backend capi/libonnxruntime.so.* \
  capi/libonnxruntime_providers_tensorrt.so)
cuda=$place/ort/onnxruntime/capi/libonnxruntime_providers_cuda.so
"$place/venv/bin/python" $here/prune_provider.py "$cuda" "$cuda" "$LANGUAGE"
tar -C "$place/ort" -cf - . | xz -T0 -6 >.gpu/onnxruntime.tar.xz
tar -C "$place/diffusers" -cf - . | xz -T0 -9 >.gpu/diffusers.tar.xz

bundle=${1:-$place/bundle}
if [ ! -e "$bundle" ]; then
  cp -r $shipped "$bundle"
  PYTHONPATH=$PWD:tests/support "$bin/python" -c "import pathlib
from diffood.zoo.images import unpack_set
from halved_graphs import add_halved_graphs
add_halved_graphs(pathlib.Path('$bundle'))
unpack_set('fashion-validation', pathlib.Path('$place/validation'), 1000)"
  "$bin/python" -m diffood calibrate "$bundle" --images "$place/validation" --fpr 0.05 --backend onnxruntime-cpu
fi
mkdir "$place/fp16"
for file in "$bundle"/*; do # the rest is in the repository
  case $file in */detector*) continue ;; esac # for other runtimes: no part here asks for them
  cmp -s "$file" "$shipped/$(basename "$file")" || cp "$file" "$place/fp16"
done
tar -C "$place/fp16" -cf - . | xz -9 >.gpu/fp16.tar.xz

large=${2:-$place/large}
[ -e "$large" ] || PYTHONPATH=$PWD "$bin/python" $here/large_bundle.py make "$large" ${WIDTH:-}
PYTHONPATH=$PWD "$bin/python" $here/large_bundle.py pack "$large" "$place/packed"
tar -C "$place/packed" -cf - . | xz -9 >.gpu/large.tar.xz

du -ab .gpu | sort -n
tree=$( (git ls-files -z -- . "${UNUSED[@]/#/:!}"; git ls-files -z --others --exclude-standard) | xargs -0 du -cb | tail -1 | cut -f1)
sum=$(((tree + $(du -sb .gpu | cut -f1)) / 1048576))
echo "$((tree / 1048576)) MiB of files and .gpu: $sum MiB together, at most $MOST_MIB"
echo "copy the repository without what no part takes: git sparse-checkout set --no-cone '/*' $(printf "'!/%s' " "${UNUSED[@]}")"
echo "and have it whole again by: git sparse-checkout disable"
[ "$sum" -le "$MOST_MIB" ]
