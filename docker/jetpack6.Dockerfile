# diffood on Jetson Orin with JetPack 6 (Ubuntu 22.04, Python 3.10, CUDA 12.6, TensorRT 10.3).
# NOT RUN: written from NVIDIA's release notes, on a machine without a GPU. Check with `diffood verify`.
#
#   docker build -f docker/jetpack6.Dockerfile --build-arg BASE=IMAGE -t diffood .
#   docker run --runtime nvidia -v "$PWD/bundle:/bundle" diffood verify /bundle
#
# IMAGE: NVIDIA's l4t-tensorrt image of your JetPack release, which carries TensorRT and its Python module.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The system's packages stay visible: TensorRT comes with JetPack, not from a Python index. So no `[tensorrt]` here.
RUN python3 -m venv --system-site-packages /venv && \
    /venv/bin/pip install --no-cache-dir . "polygraphy>=0.53" "cuda-bindings>=12.6.1,<13"
ENTRYPOINT ["/venv/bin/diffood"]
CMD ["doctor"]
