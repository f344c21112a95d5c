"""Tar shards, compressed or not, and zips: as a file without a telling name, and as one that comes piece by piece."""

import io

from oracle import LIMITS, Scratch, require_items

from diffood.runtime.inputs.archives import list_stream
from diffood.runtime.inputs.forward import ForwardFile, decompressed
from diffood.runtime.inputs.open import container_at
from diffood.runtime.inputs.reading import ReadOptions

SCRATCH = Scratch()


def use(data: bytes) -> None:
    """The first byte says how the rest comes."""
    if data[:1] == b"s":
        try:
            unpacked = decompressed(ForwardFile(io.BytesIO(data[1:])))
        except ValueError:  # of Zstandard; what lists a shard makes a row of it
            return
        require_items(list_stream(ForwardFile(unpacked), "stream", ReadOptions(LIMITS)))
        return
    path = SCRATCH.file("archive", data[1:])
    if container := container_at(path):
        require_items(container.list_items(str(path), "archive", ReadOptions(LIMITS)))
