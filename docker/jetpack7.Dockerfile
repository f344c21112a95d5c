# diffood on Jetson Thor with JetPack 7, and on Jetson Orin from JetPack 7.2 (Ubuntu 24.04, Python 3.12, CUDA 13). TensorRT is
# the 10.x of the JetPack, or 11.4.1 from JetPack 7.2.2 on: docs/deploy.md.
# NOT RUN: written from NVIDIA's release notes, on a machine without a GPU. Check with `diffood verify`.
#
#   docker build -f docker/jetpack7.Dockerfile --build-arg BASE=IMAGE -t diffood .
#   docker run --runtime nvidia -v "$PWD/bundle:/bundle" diffood verify /bundle
#
# IMAGE: NVIDIA's TensorRT image for Arm servers and Jetson Thor (CUDA 13), with TensorRT's Python module.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The system's packages stay visible: TensorRT comes with the image, not from a Python index.
RUN python3 -m venv --system-site-packages /venv && \
    /venv/bin/pip install --no-cache-dir . "polygraphy>=0.53" "cuda-bindings>=13,<14"
ENTRYPOINT ["/venv/bin/diffood"]
CMD ["doctor"]
