#!/usr/bin/env bash
# On the GPU machine: unpack .gpu/ once. SITE and PKG name other folders, to try it elsewhere.
set -euo pipefail
SITE=${SITE:-$HOME/.cache/diffood-gpu/site} PKG=${PKG:-.gpu} python=${PYTHON:-python3}
[ -e "$SITE/.done" ] && exit 0
began=$SECONDS
mkdir -p "$SITE"
"$python" - "$SITE" "$PKG" <<'PY'
import sys, tarfile
for name in ("onnxruntime", "diffusers"):
    with tarfile.open(f"{sys.argv[2]}/{name}.tar.xz") as archive:
        archive.extractall(sys.argv[1], filter="data")
PY
"$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" "$PKG"/*.whl
# onnxruntime.preload_dlls looks for CUDA and cuDNN in `nvidia` next to itself; here torch brought them.
nvidia=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null) && ln -sfn "$nvidia" "$SITE/nvidia"
touch "$SITE/.done"
echo "unpacked in $((SECONDS - began)) s: $(du -sm --apparent-size "$SITE" | cut -f1) MB"
