"""People's answers on served rows, and whether they withdrew the certificate: a record beside the bundle.

It lies in a folder BUNDLE.feedback, since a bundle may be signed and read-only, and is named after the calibration that
judged the rows, to which it is bound: another calibration has a record of its own. Draws rows and reads answers, which
`serving.feedback_record` writes; computes no bounds.
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, Sha256
from diffood.runtime.bundle.calibration import Calibration, ClassIndex
from diffood.runtime.bundle.files import plain_folder, read_record
from diffood.runtime.records import Record, Text

ENDING = ".feedback"  # of the folder beside the bundle
NAME_DIGITS = 12  # of the calibration's sha256, as kept calibrations are named
MAX_RECORD_BYTES = 256 * 2**20  # half a million answers
HASH_BITS = 52  # a float64 represents an odd multiple of 2^-53 exactly

PersonAnswer = Literal["ind", "ood"]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
DrawShare = Annotated[float, Field(gt=0, le=1)]


class LabelDesign(Record):
    """Which rows are drawn for labelling. Fixed for a calibration, so that every probability is known beforehand.

    Attributes:
        flagged: Probability with which a flagged row is drawn.
        passed: Probability with which another row is drawn.
        seed: Changes which rows these are.
    """

    flagged: DrawShare = 1.0
    passed: DrawShare = 0.05
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def probability(self, *, flagged: bool) -> float:
        """With which a row is drawn."""
        return self.flagged if flagged else self.passed

    def draws(self, identity: str, sha256: str, *, flagged: bool) -> bool:
        """Whether a row is drawn: a function of the row and the seed alone, so every reader draws the same rows."""
        return self.uniform("draw", identity, sha256) < self.probability(flagged=flagged)

    def thins(self, identity: str, sha256: str, *, flagged: bool) -> bool:
        """Whether a row that was drawn stays in a sample to which each row belongs with the smaller probability."""
        kept = min(self.flagged, self.passed) / self.probability(flagged=flagged)
        return self.uniform("thin", identity, sha256) < kept

    def uniform(self, purpose: str, identity: str, sha256: str) -> float:
        """A number in (0, 1), uniform over rows and the same on every run; independent between purposes."""
        text = "\0".join(("diffood feedback", purpose, str(self.seed), sha256, identity))
        drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - HASH_BITS)
        return (drawn + 0.5) / float(2**HASH_BITS)


class LabelTask(Record):
    """A row that was drawn, and what a person said.

    Attributes:
        id: Of the row.
        sha256: Of the file's bytes.
        flagged: Whether the row is flagged.
        score: Of the row; None if the models gave no finite one.
        predicted_class: Of the row.
        answer: Whether the image is in-distribution or not; None before somebody said.
        turn: Place of the answer among all, from 1; None before.
    """

    id: str
    sha256: str
    flagged: bool
    score: float | None
    predicted_class: ClassIndex
    answer: PersonAnswer | None = None
    turn: Annotated[int, Field(ge=1)] | None = None


class FeedbackRecord(Record):
    """All that feedback on one calibration has said.

    Attributes:
        calibration_sha256: Of the calibration that judged the rows.
        bundle_digest: Of the bundle when the record was begun; `verify` and `tune` may have written into it since.
        design: Which rows are drawn.
        confidence: With which the certificate is not withdrawn while what it says is true.
        max_passed_ood: Largest share of OOD images among rows that passed; None for no limit.
        tasks: The rows drawn so far.
        withdrawn: Which limit is broken, as a sentence; "" while none is.
    """

    format: Literal[1] = 1
    calibration_sha256: Sha256
    bundle_digest: Text
    design: LabelDesign
    confidence: OpenShare = 0.95
    max_passed_ood: OpenShare | None = None
    tasks: tuple[LabelTask, ...] = ()
    withdrawn: Text = ""

    @model_validator(mode="after")
    def _consistent(self) -> "FeedbackRecord":
        turns = sorted(task.turn for task in self.tasks if task.turn is not None)
        if turns != list(range(1, len(turns) + 1)):
            raise ValueError("tasks: the turns of the answers are not 1, 2, 3 and so on")
        for task in self.tasks:
            if (task.answer is None) != (task.turn is None):
                raise ValueError(f"tasks: {task.id[:80]!r} has an answer without a turn, or a turn without an answer")
            if not self.design.draws(task.id, task.sha256, flagged=task.flagged):
                raise ValueError(f"tasks: {task.id[:80]!r} is not drawn by the design")
        return self

    @property
    def answered(self) -> tuple[LabelTask, ...]:
        """Tasks with an answer, in the order in which the answers came."""
        return tuple(sorted((task for task in self.tasks if task.turn), key=lambda task: task.turn or 0))


def feedback_path(bundle: Bundle, calibration: Calibration) -> Path:
    """Where the record of a calibration lies."""
    path = Path(os.path.abspath(bundle.path))  # noqa: PTH100 - resolve() would follow a link to a read-only place
    return path.with_name(path.name + ENDING) / f"{calibration.sha256[:NAME_DIGITS]}.json"


def find_feedback(bundle: Bundle, calibration: Calibration) -> FeedbackRecord | None:
    """The record of a calibration; None where there is none. Raises BundleError if it is damaged or of another one."""
    path = feedback_path(bundle, calibration)
    folder = plain_folder(path.parent.parent, path.parent.name)
    if not os.path.lexists(path):
        return None
    remedy = "restore it from a backup, or remove it and give all labels again"
    found = read_record(folder, path.name, FeedbackRecord, limit=MAX_RECORD_BYTES, remedy=remedy)
    if found.calibration_sha256 != calibration.sha256:
        raise BundleError(
            f"{path} is about another calibration ({found.calibration_sha256[:NAME_DIGITS]}) than the bundle's "
            f"({calibration.sha256[:NAME_DIGITS]}); {remedy}."
        )
    return found


def find_withdrawn(bundle: Bundle, calibration: Calibration) -> str:
    """Why feedback has withdrawn the certificate of a calibration, as a sentence; "" where it has not."""
    found = find_feedback(bundle, calibration)
    return found.withdrawn if found else ""


def begin_feedback(bundle: Bundle, calibration: Calibration, design: LabelDesign | None = None) -> FeedbackRecord:
    """A record without answers."""
    design = design or LabelDesign()
    return FeedbackRecord(calibration_sha256=calibration.sha256, bundle_digest=bundle.digest, design=design)
