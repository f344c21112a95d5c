"""Keeps flagged images: a copy of the bytes that were scored, and the denoised picture."""

import hashlib
import io
import os
from pathlib import Path

from PIL import Image

from diffood.errors import DiffoodError, RejectedImage
from diffood.runtime.bundle.durable import write_durably_in
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.images.pixels import to_pixels
from diffood.runtime.inputs.items import Item
from diffood.runtime.results import ImageScore

HASH_DIGITS = 12  # of the sha256 in a picture's name; among a million files, names of two collide once in 500
LONGEST_NAME = 48  # characters of a file's own name; with four bytes each a name stays below 255


class FlaggedFolder:
    """A folder of flagged images. Raises DiffoodError if it cannot be written.

    NUMBER-NAME is the file of row NUMBER, counted from 0, and NUMBER-NAME.denoised.png the image after denoising. It
    is kept before its row is written, and keeping it twice gives the same bytes, so that a resume leaves nothing out.

    Attributes:
        not_kept: Files that changed or went away after they were scored.
    """

    def __init__(self, folder: Path, limits: ImageLimits, option: str = "--save-flagged") -> None:
        self.folder, self._limits, self._option, self.not_kept = folder, limits, option, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._identity = _identify(folder.stat())
        except OSError as error:
            raise self._refusal(error) from None

    def keep(self, number: int, item: Item, sha256: str, picture: bytes | None) -> None:
        """Keep the file of a row and its picture. A file that changed since it was scored is counted instead."""
        self.keep_as(f"{number:07d}-{_plain(item.id)}", item, sha256, picture)

    def keep_as(self, name: str, item: Item, sha256: str, picture: bytes | None) -> None:
        """The same under a name of the caller's."""
        try:
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                self._require_same(folder)
                self._keep_file(folder, name, item, sha256)
                if picture is not None:
                    write_durably_in(folder, f"{name}.denoised.png", picture)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._refusal(error) from None

    def _require_same(self, folder: int) -> None:
        if _identify(os.fstat(folder)) != self._identity:
            raise DiffoodError(
                f"{self.folder} was replaced by another folder while the run wrote into it; put the first one back, or "
                "choose a place that nothing else changes, and continue with --resume."
            )

    def _keep_file(self, folder: int, name: str, item: Item, sha256: str) -> None:
        try:
            data = item.read(self._limits)
        except RejectedImage:
            data = None
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            self.not_kept += 1
            return
        write_durably_in(folder, name, data)  # never a link to a name that may be another file by now, or change later

    def _refusal(self, error: OSError) -> DiffoodError:
        return DiffoodError(
            f"Cannot write into {self.folder} ({error.strerror or error}); free some space, or choose another "
            f"{self._option}."
        )


def _identify(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def draw_denoised(result: ImageScore | None) -> bytes | None:
    """The image denoised from the largest start time with the first noise, as PNG; None if scoring stopped before."""
    denoised = None if result is None else result.evidence.denoised
    if denoised is None:
        return None
    pixels = to_pixels(denoised)
    buffer = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def picture_name(identity: str, sha256: str) -> str:
    """Name of the picture of a row that is to be labelled; the same in every run."""
    return f"{sha256[:HASH_DIGITS]}-{_plain(identity)}"


def _plain(identity: str) -> str:
    """The end of an id as a file name without special characters."""
    name = identity.rpartition("/")[2]
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[-LONGEST_NAME:]
