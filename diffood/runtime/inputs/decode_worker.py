"""The child process that decodes images: pickled items with their bytes come in, a line of JSON and pixels go out.

decoding.py starts it. It imports numpy and Pillow, but no engine, and can open nothing once it is up.
"""

import json
import pickle
import signal
from dataclasses import asdict, dataclass
from typing import Any

from PIL import ImageCms, ImageColor, ImageFilter, ImagePalette  # noqa: F401 - Pillow's own imports, too late by then

from diffood.runtime.child import serve_parent
from diffood.runtime.images.decode import DecodedImage, ImageLimits, ImageShape
from diffood.runtime.inputs.items import Item, describe_error

BYTES_A_PIXEL = 16  # Pillow's 4 for the file's mode, as much for the mode it is converted to, twice that for resizing
SLACK_MEGABYTES = 512  # for the decoders themselves
ORPHAN_FACTOR = 3


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
        values: dict[str, Any] = json.loads(text)
        return cls(ImageShape(**values["shape"]), ImageLimits(**values["limits"]), values["seconds"])


def main(argument: str) -> None:
    """Answer groups of items until the parent closes the pipe or is gone."""
    task = DecodeTask.of_json(argument)
    pipe = serve_parent(task.megabytes)
    while True:
        try:
            items: list[Item] = pickle.loads(pipe.recv_bytes())  # of the process that started this one
        except EOFError:
            return
        for item in items:
            # The parent ends a process that takes too long; where the parent is gone, SIGALRM does.
            signal.setitimer(signal.ITIMER_REAL, ORPHAN_FACTOR * task.seconds)
            loaded = _load(item, task)
            signal.setitimer(signal.ITIMER_REAL, 0)
            header = {"sha256": loaded.sha256, "note": loaded.note, "error": loaded.error}
            pixels = b"" if loaded.pixels is None else loaded.pixels.tobytes()
            pipe.send_bytes(json.dumps(header).encode() + b"\n" + pixels)


def _load(item: Item, task: DecodeTask) -> DecodedImage:
    try:
        return item.load(task.shape, task.limits)
    except Exception as error:  # a MemoryError where not even the file fits, or a fault of ours: one row, not the run
        return DecodedImage(None, "", error=f"The image could not be read ({describe_error(error)}); check the file.")
