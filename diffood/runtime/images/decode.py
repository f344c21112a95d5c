"""Decodes untrusted image files: bytes in, pixels uint8 of the model's shape out. No model, no folder walking."""

import contextlib
import hashlib
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

# The plugins are imported by name, so that no thread has to fill Pillow's registry while another one reads it.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from diffood.errors import RejectedImage
from diffood.runtime.images.gif import count_frames
from diffood.runtime.images.kinds import foreign_kind
from diffood.runtime.images.modes import REDUCED, to_grey_or_rgb
from diffood.runtime.images.opening import open_patiently
from diffood.runtime.images.png import SIGNATURE, without_metadata

# Pillow's warnings about a hostile file belong in that file's row, not on stderr. Set once, here: changing warning
# filters while threads run is not safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""Raster formats that Pillow decodes itself; never EPS or PDF, for which it starts other programs."""

DEFAULT_MAX_BYTES = 64 * 2**20
"""64 MiB: an uncompressed 20-megapixel photo fits, and a few decoding workers still fit into an edge device's RAM."""
DEFAULT_MAX_PIXELS = 50_000_000
"""50 megapixels: above most cameras; decoded to Pillow's 4 bytes a pixel it is 200 MB, and conversion doubles it."""
STRETCH_TOLERANCE = 1.01
"""Aspect ratios that differ by more than this factor are called stretched: 1 % is about rounding at 100 pixels."""
REDUCING_GAP = 3.0
"""Pillow's own advice for `Image.resize`: box-shrink to 3x the target first, then filter; memory stays small."""
MOST_FRAMES_COUNTED = 100
"""Frames of a refused file are counted up to this: a long chain of tiny frames must not take minutes."""
LONGEST_REASON = 160
"""Characters of a decoder's message that are kept: people read rows."""

# TIFF 6.0 tags and the EXIF 2.3 orientation tag, by their numbers in those documents.
ORIENTATION, TILE_WIDTH, TILE_LENGTH = 274, 322, 323
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image with this EXIF orientation upright; 1 is upright."""


@dataclass(frozen=True)
class ImageShape:
    """The shape a model takes: channels (1 grey, 3 RGB), height and width in pixels."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"An image has 1 channel (grey) or 3 (RGB), not {self.channels}; correct the image shape.")
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"An image is at least 1x1 pixels, not {self.width}x{self.height}; correct the image shape."
            )


@dataclass(frozen=True)
class ImageLimits:
    """Limits of one image: bytes of its file, and pixels that its header announces."""

    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One decoded file, or the reason why it was refused.

    Attributes:
        pixels: uint8 [C, H, W]; None if it was refused.
        sha256: Of the file's bytes; "" if they could not be read.
        note: What was changed while decoding; "" if nothing.
        error: The reason; "" if it was not refused.
    """

    pixels: npt.NDArray[np.uint8] | None
    sha256: str
    note: str = ""
    error: str = ""


def read_file(path: Path, limits: ImageLimits) -> bytes:
    """Read the bytes of one regular file. Raises RejectedImage if it is missing, unreadable, special, empty or too big.

    The type is checked before opening, since opening a device can act on it, and again on the descriptor, since the
    name may be another file by then. O_NONBLOCK keeps a FIFO that was put there meanwhile from blocking for ever.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # each is missing on one platform
    try:
        _refuse_special(path.stat().st_mode)
        descriptor = open_patiently(path, flags)
        try:
            status = os.fstat(descriptor)
            _refuse_special(status.st_mode)
            refuse_byte_count(status.st_size, limits)
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(status.st_size + 1)  # one more shows a file that is growing
            touched = os.fstat(descriptor).st_mtime_ns != status.st_mtime_ns
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL or one that cannot be encoded
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
        raise RejectedImage(f"The file cannot be read ({reason}); check that it exists and its permissions.") from error
    if len(data) != status.st_size:
        raise RejectedImage(
            f"The file's size changed from {status.st_size} bytes while it was read; wait until it is written."
        )
    if touched:
        raise RejectedImage("The file was written to while it was read; wait until it is written.")
    return data


def load_image(path: Path, shape: ImageShape, limits: ImageLimits = DEFAULT_LIMITS) -> DecodedImage:
    """Read and decode one file for a model of this shape; a refusal is returned, not raised."""
    return read_and_decode(lambda: read_file(path, limits), shape, limits)


def read_and_decode(read: Callable[[], bytes], shape: ImageShape, limits: ImageLimits) -> DecodedImage:
    """Decode the bytes of `read` for a model of this shape; a refusal, also by `read`, is returned, not raised."""
    sha256 = ""
    try:
        data = read()
        sha256 = hashlib.sha256(data).hexdigest()
        pixels, note = decode(data, shape, limits)
    except RejectedImage as error:
        return DecodedImage(None, sha256, error=str(error))
    return DecodedImage(pixels, sha256, note)


def decode(data: bytes, shape: ImageShape, limits: ImageLimits) -> tuple[npt.NDArray[np.uint8], str]:
    """Decode the bytes of an image file to pixels uint8 [C, H, W] and a note of what was changed, "" for nothing.

    Order: turned upright by EXIF, alpha composited over black, converted to grey (ITU-R 601-2) or RGB, resized
    without keeping the aspect ratio by box reduction and then BICUBIC, both antialiased. 16-bit grey is rounded from
    value / 257; of 16-bit RGB Pillow keeps the high byte, which is at most one level away from that.

    Raises RejectedImage, and nothing else, if the bytes are empty, too many, damaged, of another format, announce
    too many pixels, have several frames, or have values without a known white (float, 32-bit integers).
    """
    refuse_byte_count(len(data), limits)
    with explain_damage():
        _refuse_webp_canvas(data, limits)
        data = without_metadata(data, limits.max_bytes)
        try:
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            kind = foreign_kind(data)
            seems = f", as {kind} does" if kind else ""
            raise RejectedImage(
                f"The file is not an image in a format diffood reads, or its header is damaged (it begins with "
                f"{data[:8]!r}{seems}); use one of {', '.join(FORMATS)}."
            ) from error
        with opened as image:
            refuse_pixel_count(image, limits)
            _refuse_frames(image, data)
            if image.format == "PNG":
                _check_png_chunks(data)
            return convert_picture(image, shape)


@contextlib.contextmanager
def explain_damage() -> Iterator[None]:
    """Turn whatever a decoder raises into a RejectedImage: zlib.error, struct.error, KeyError, ..."""
    try:
        yield
    except RejectedImage:
        raise
    except Image.DecompressionBombError as error:  # reached when max_pixels is set above Pillow's own limit
        raise RejectedImage(f"The image is too large ({error_text(error)}); scale it down.") from error
    except MemoryError as error:
        raise RejectedImage("The image needs more memory to decode than is allowed; scale it down.") from error
    except Exception as error:
        raise RejectedImage(
            f"The image is damaged or uses a feature that cannot be decoded ({type(error).__name__}: "
            f"{error_text(error)}); save it again as PNG or JPEG."
        ) from error


def error_text(error: BaseException) -> str:
    """The message of an error as a short printable line that is the same on every run."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", str(error))  # addresses would make rows differ from run to run
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:LONGEST_REASON]


def _refuse_special(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    kind = kinds.get(stat.S_IFMT(mode), "a special file")
    raise RejectedImage(f"This is {kind}, not a regular file; give an image file.")


def refuse_byte_count(count: int, limits: ImageLimits) -> None:
    """Raise RejectedImage if a file has no bytes or too many."""
    if count == 0:
        raise RejectedImage("The file is empty (0 bytes); copy it again from its source.")
    if count > limits.max_bytes:
        raise RejectedImage(
            f"The file has {count} bytes and the limit is {limits.max_bytes}; save it smaller, or raise the limit."
        )


def _refuse_size(width: int, height: int, what: str, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise RejectedImage(
            f"The {what} has {width}x{height} = {width * height} pixels and the limit is {limits.max_pixels}; "
            f"scale the image down, or raise the limit."
        )


def _refuse_webp_canvas(data: bytes, limits: ImageLimits) -> None:
    """Read a WebP's size before Pillow opens it, which creates the decoder and two canvases.

    Offsets from RFC 9649, section 2; a header that fits none of the three kinds is left to the decoder to refuse.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    if data[12:16] == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    _refuse_size(width, height, "image", limits)


def refuse_pixel_count(image: Image.Image, limits: ImageLimits) -> None:
    """Raise RejectedImage if a picture, or a tile of its file, has too many pixels."""
    _refuse_size(*image.size, "image", limits)
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile is decoded whole, and may be larger than its image
        tile = [int(image.tag_v2.get(tag, 0)) for tag in (TILE_WIDTH, TILE_LENGTH)]
        _refuse_size(tile[0], tile[1], "image's TIFF tile", limits)


def _refuse_frames(image: Image.Image, data: bytes) -> None:
    """Refuse an animation or several pages: which frame is meant is not ours to guess.

    An MPO is let through: it is a JPEG file whose other pictures (previews, the second eye) follow the end of the
    JPEG, and every JPEG decoder shows the first.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return
    if image.format in ("PNG", "WEBP"):
        counted = f"{getattr(image, 'n_frames', 0)}"  # announced in the header
    else:
        frames = count_frames(data, MOST_FRAMES_COUNTED) if image.format == "GIF" else _count_pages(image)
        counted = f"{'at least ' if frames == MOST_FRAMES_COUNTED else ''}{max(2, frames)}"
    raise RejectedImage(
        f"The {image.format} file has {counted} frames and a verdict is about one image; save each frame as a file."
    )


def _count_pages(image: Image.Image) -> int:
    """Pages of a TIFF up to the limit, by its directories: nothing is decoded."""
    pages = 1
    with contextlib.suppress(EOFError):
        while pages < MOST_FRAMES_COUNTED:
            image.seek(pages)
            pages += 1
    return pages


def _check_png_chunks(data: bytes) -> None:
    """Check every chunk up to the end mark: decoding alone skips the checksums of pixels and stops at the last row."""
    chunks = io.BytesIO(data)
    chunks.seek(len(SIGNATURE))
    PngImagePlugin.ChunkStream(chunks).verify()


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """The orientation its EXIF data tells, 1 where it tells none or is damaged: the pixels may be sound."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow parses it with any class of error: SyntaxError, ValueError, struct.error, ...
        notes.append("its EXIF data is damaged and was ignored")
        return 1


def convert_picture(image: Image.Image, shape: ImageShape) -> tuple[npt.NDArray[np.uint8], str]:
    """Pixels uint8 [C, H, W] of a picture, and a note of what was changed.

    The order of the steps is in `decode`. Raises RejectedImage, and whatever decoding a picture may raise.
    """
    notes = [f"first of the {getattr(image, 'n_frames', 1)} pictures of an MPO"] if image.format == "MPO" else []
    # The raw mode of the file is lost once it is loaded, and an 8-bit RGB may have been 16-bit in the file.
    tiles = getattr(image, "tile", []) if image.format in ("PNG", "TIFF") else []
    was_16_bit = any(";16" in str(tile[3]) for tile in tiles)
    orientation = _orientation(image, notes)
    image.load()
    colour = to_grey_or_rgb(image, notes)
    if was_16_bit or image.mode.startswith("I"):
        notes.append(REDUCED)
    if orientation in UPRIGHT:
        if image.format != "TIFF":  # Pillow turns a TIFF itself when it loads it
            colour = colour.transpose(UPRIGHT[orientation])
        notes.append("rotated by its EXIF tag")
    wanted = "L" if shape.channels == 1 else "RGB"
    if colour.mode != wanted:
        notes.append("converted from RGB to grey" if wanted == "L" else "converted from grey to RGB")
        colour = colour.convert(wanted)
    if colour.size != (shape.width, shape.height):
        width, height = colour.size
        aspect_change = (width * shape.height) / (height * shape.width)
        stretched = max(aspect_change, 1 / aspect_change) > STRETCH_TOLERANCE
        notes.append(f"resized from {width}x{height}" + (" and stretched" if stretched else ""))
        colour = colour.resize((shape.width, shape.height), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(colour, np.uint8).reshape(shape.height, shape.width, shape.channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), "; ".join(notes)
