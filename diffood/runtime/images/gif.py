"""Counts the frames of a GIF from its blocks (GIF89a, sections 18 to 27). Decodes nothing.

Pillow decodes the frames that it passes, and lets each of them enlarge the picture: 300 bytes took 1.6 GB.
"""

HEADER_BYTES = 13  # signature and logical screen descriptor, whose flags are at 10
IMAGE_BYTES, IMAGE_FLAGS = 10, 9  # of an image descriptor
IMAGE, EXTENSION = 0x2C, 0x21
MOST_BLOCKS = 1_000_000  # blocks of data that are passed; a frame has one for each 255 bytes


def count_frames(data: bytes, most: int) -> int:
    """Frames up to `most`, to the end, or to what is no block."""
    at, frames, left = HEADER_BYTES + _table_bytes(_byte(data, 10)), 0, MOST_BLOCKS
    while frames < most and left > 0:
        kind = _byte(data, at)
        if kind == IMAGE:
            frames += 1
            at += IMAGE_BYTES + _table_bytes(_byte(data, at + IMAGE_FLAGS)) + 1
        elif kind == EXTENSION:
            at += 2
        else:
            break
        while left > 0 and (size := _byte(data, at)):
            at, left = at + size + 1, left - 1
        at, left = at + 1, left - 1
    return frames


def _byte(data: bytes, at: int) -> int:
    """A byte; 0, which ends everything, beyond the end."""
    return data[at] if at < len(data) else 0


def _table_bytes(flags: int) -> int:
    """Length of the colour table that the flags of a descriptor announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
