"""Images held in memory as encoded bytes to rows, as a server gets them: one batch at a time, nothing of transport."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffood.runtime.decision import Rule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, Limits, refuse_byte_count
from diffood.runtime.inputs.items import Item
from diffood.runtime.pipeline import score_files
from diffood.serving.batch import make_row
from diffood.serving.rows.row import Row


@dataclass(frozen=True)
class Encoded(Item):
    """The bytes of an image file. It says of itself that it holds none: all of a batch are held by the caller."""

    data: bytes

    @property
    def place(self) -> str:
        """None."""
        return ""

    def read(self, limits: Limits) -> bytes:
        """The bytes; RejectedImage where a file of so many would be refused, before any of them is hashed."""
        refuse_byte_count(len(self.data), limits)
        return self.data


def score_encoded(
    detector: Detector, rule: Rule, images: Sequence[bytes], limits: Limits = DEFAULT_LIMITS
) -> list[Row]:
    """A row for each image file given as its bytes, in their order; what cannot be used becomes a rejected row.

    Each row is that of `serve_batch` on a file of these bytes, but for its id, which is "". All are held at once.
    """
    items = [Encoded("", data) for data in images]
    return [make_row(outcome, rule, detector) for outcome in score_files(detector, items, limits)]
