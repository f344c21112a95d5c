"""What a calibration says about detection: counts of labelled OOD examples, and the bound that follows from them."""

import math
from typing import Annotated

from pydantic import Field, model_validator

from diffood.runtime.method.promises import CLOSE, upper_end
from diffood.runtime.records import Record

MOST_EXAMPLES = 10**6  # a bound of more takes memory, and a record may claim any number


class DetectionRecord(Record):
    """How many of labelled OOD examples are flagged at a calibration's thresholds.

    Attributes:
        images: OOD examples that were scored.
        flagged: Of these.
        delta: 1 minus the confidence of the bound.
        bound: Of the share that is flagged of OOD images like these, from below (Clopper and Pearson 1934).
    """

    images: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)]
    flagged: Annotated[int, Field(ge=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    bound: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "DetectionRecord":
        if self.flagged > self.images:
            raise ValueError(f"{self.flagged} of {self.images} OOD examples are flagged; that is not possible")
        true = lowest_share(self.flagged, self.images, self.delta)
        if not math.isclose(self.bound, true, rel_tol=CLOSE, abs_tol=1e-12):
            raise ValueError(f"bound: {self.bound} is not what {self.flagged} of {self.images} give, {true}")
        return self

    @property
    def statement(self) -> str:
        """The promise, with what it does not say."""
        return (
            f"With {1 - self.delta:.1%} confidence, at least {self.bound:.2%} of OOD images like these {self.images} "
            f"are flagged ({self.flagged} were); nothing is promised about OOD images of other kinds."
        )


def lowest_share(flagged: int, images: int, delta: float) -> float:
    """The share of which at least `flagged` of `images` are flagged with a probability of delta; 0 where none is."""
    return 1 - upper_end(images - flagged, images, delta)
