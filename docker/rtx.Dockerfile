# diffood on a PC with an RTX card (x86-64, driver for CUDA 13): TensorRT-RTX from the Python index, no toolkit needed.
# NOT RUN as an image (no container engine and no GPU where it was written); the installation lines were, and engines
# were built with them without a GPU. Check with `diffood verify`.
#
#   docker build -f docker/rtx.Dockerfile -t diffood .
#   docker run --gpus all -v "$PWD/bundle:/bundle" diffood verify /bundle
FROM python:3.12-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir ".[tensorrt-rtx]"
ENTRYPOINT ["diffood"]
CMD ["doctor"]
