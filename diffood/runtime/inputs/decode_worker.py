"""The child process that decodes images: pickled items with their bytes come in, a line of JSON and pixels go out.

decoding.py starts it. It imports numpy and Pillow, but no engine, and can open nothing once it is up.
"""

import json
from dataclasses import asdict, dataclass

from PIL import ImageCms, ImageColor, ImageFilter, ImagePalette  # noqa: F401 - Pillow's own imports, too late by then

from diffood.runtime.child import answer_items, serve_parent
from diffood.runtime.images.decode import DecodedImage, ImageLimits, ImageShape
from diffood.runtime.inputs.items import Item, describe_error
from diffood.runtime.json_reader import parse_object

BYTES_A_PIXEL = 16  # Pillow's 4 for the file's mode, as much for the mode it is converted to, twice that for resizing
SLACK_MEGABYTES = 512  # for the decoders themselves


@dataclass(frozen=True)
class DecodeTask:
    """What a decoding process is told at its start; `seconds` is the limit for one image."""

    shape: ImageShape
    limits: ImageLimits
    seconds: float

    @property
    def megabytes(self) -> int:
        """MiB of memory that one image may take, its file included."""
        return SLACK_MEGABYTES + (2 * self.limits.max_bytes + BYTES_A_PIXEL * self.limits.max_pixels) // 2**20

    def as_json(self) -> str:
        """The argument of the process."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "DecodeTask":
        """Read `as_json`."""
        values = parse_object(text.encode())
        return cls(ImageShape(**values["shape"]), ImageLimits(**values["limits"]), values["seconds"])


def main(argument: str) -> None:
    """Answer groups of items until the parent closes the pipe or is gone."""
    task = DecodeTask.of_json(argument)
    pipe = serve_parent(task.megabytes)

    def answer(item: Item) -> tuple[dict[str, str], bytes]:
        loaded = _load(item, task)
        header = {"sha256": loaded.sha256, "note": loaded.note, "error": loaded.error}
        return header, b"" if loaded.pixels is None else loaded.pixels.tobytes()

    answer_items(pipe, task.seconds, answer)


def _load(item: Item, task: DecodeTask) -> DecodedImage:
    try:
        return item.load(task.shape, task.limits)
    except Exception as error:  # a MemoryError where not even the file fits, or a fault of ours: one row, not the run
        return DecodedImage(None, "", error=f"The image could not be read ({describe_error(error)}); check the file.")
