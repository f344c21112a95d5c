"""Scores image files that are held in memory, one batch at a time, as a server receives them."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits, refuse_byte_count
from diffood.runtime.inputs.items import Item
from diffood.runtime.pipeline import score_files
from diffood.serving.local import make_rows
from diffood.serving.rows.row import Row


@dataclass(frozen=True)
class EncodedImage(Item):
    """An image file given as its bytes. Its `held` stays 0: the caller holds the bytes of all images of a batch."""

    data: bytes

    @property
    def place(self) -> str:
        """See Item.place."""
        return ""

    def read(self, limits: ImageLimits) -> bytes:
        """The bytes. Raises RejectedImage if there are too many, before any of them is hashed."""
        refuse_byte_count(len(self.data), limits)
        return self.data


def score_encoded(
    detector: Detector, rule: DecisionRule, images: Sequence[bytes], limits: ImageLimits = DEFAULT_LIMITS
) -> list[Row]:
    """One row per image file given as its bytes, in order; a file that cannot be used becomes a rejected row.

    Each row equals that of `serve_batch` for a file of these bytes, except its id, which is "".
    """
    items = [EncodedImage("", data) for data in images]
    return make_rows(list(score_files(detector, items, limits)), rule, detector)
