"""Zeroes GPU code of libonnxruntime_providers_cuda.so that a card of compute capability 9.0 does not load.

The layout stays, what is kept is byte for byte what was published, and the file compresses to a twentieth. A figure
that was measured with it names it as trimmed. Run: prune_provider.py INPUT OUTPUT [REGEX of further kernels to drop].
"""

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FATBIN = struct.pack("<I", 0xBA55ED50)  # magic number of a CUDA fat binary
KEPT_ARCHITECTURE = 90


@dataclass(frozen=True)
class Code:
    """One entry of a fat binary: where its code lies, its packed and its whole size, and the architecture."""

    start: int
    length: int
    packed: int
    whole: int
    architecture: int


def list_code(data: bytearray) -> Iterator[Code]:
    """Every entry of every fat binary in a shared library."""
    at = 0
    while (at := data.find(FATBIN, at)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", data, at + 4)
        if (version, header) != (1, 16):
            at += 4
            continue
        place, end = at + 16, at + 16 + size
        while place < end:
            _, _, head, length = struct.unpack_from("<HHIQ", data, place)
            packed, _, _, _, architecture, _, _, _, _, whole = struct.unpack_from("<IIHHIIIQQQ", data, place + 16)
            yield Code(place + head, length, packed, whole, architecture)
            place += head + length
        at = end


def kernels_of(data: bytearray, code: Code) -> set[bytes]:
    """Names of the kernels in an entry, which is compressed with zstandard."""
    import zstandard

    packed = bytes(data[code.start : code.start + code.packed])
    elf = zstandard.ZstdDecompressor().decompress(packed, max_output_size=code.whole)
    return set(re.findall(rb"\.text\.([A-Za-z0-9_$.]+)", elf))


def main() -> None:
    """Read, zero, write, and say how much of what."""
    source, target, *patterns = sys.argv[1:]
    dropped = re.compile(patterns[0].encode()) if patterns else None
    data = bytearray(Path(source).read_bytes())
    kept = others = named = 0
    for code in list(list_code(data)):
        if code.architecture != KEPT_ARCHITECTURE:
            others += code.length
        elif dropped and (kernels := kernels_of(data, code)) and all(map(dropped.search, kernels)):
            named += code.length
        else:
            kept += code.length
            continue
        data[code.start : code.start + code.length] = bytes(code.length)
    Path(target).write_bytes(data)
    print(f"kept {kept / 1e6:.1f} MB, zeroed {others / 1e6:.1f} MB of other GPUs and {named / 1e6:.1f} MB by name")


if __name__ == "__main__":
    main()
