"""The door of this room: served rows and answers in, bounds and the state of the certificate out.

What happens in which order:

    1. the record beside the bundle is read, or begun: what was fixed once stays fixed
    2. the rows are read; those that the design draws become tasks
    3. labels become answers of tasks, in the order of the file; anything invalid ends it before anything is written
    4. the bounds are computed from all answers, in the order in which they came
    5. the record is written, in one move
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from diffood.calibration.drift.monitor import require_own
from diffood.calibration.feedback.labels import Label, read_labels
from diffood.calibration.feedback.sequences import Draws, bound_above, bound_below, first_refuted
from diffood.calibration.metrics.formatting import percent
from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibration
from diffood.runtime.bundle.durable import write_durably
from diffood.runtime.bundle.feedback import (
    FeedbackRecord,
    LabelDesign,
    LabelTask,
    begin_feedback,
    feedback_path,
    find_feedback,
)
from diffood.serving.completing import state_of
from diffood.serving.feedback_record import changing_feedback, save_feedback
from diffood.serving.rows.formats.comma_separated import guard_cell, read_cell
from diffood.serving.rows.readers import read_rows
from diffood.serving.rows.row import CertificateState, Row
from diffood.serving.watching.flagged import picture_name


@dataclass(frozen=True)
class FeedbackRequest:
    """What `diffood feedback` is asked for. None keeps what the record has, or takes the default.

    Attributes:
        bundle: The bundle that served the rows.
        rows: Outputs of serve-batch.
        labels: File of answers; None to draw only.
        flagged: Probability with which a flagged row is drawn.
        passed: Probability with which another row is drawn.
        seed: Changes which rows are drawn.
        confidence: With which the certificate is not withdrawn while what it says is true.
        max_passed_ood: Largest share of OOD images among rows that passed.
        tasks: CSV file for the tasks without an answer.
    """

    bundle: Path
    rows: tuple[Path, ...] = ()
    labels: Path | None = None
    flagged: float | None = None
    passed: float | None = None
    seed: int | None = None
    confidence: float | None = None
    max_passed_ood: float | None = None
    tasks: Path | None = None


@dataclass(frozen=True)
class RateBounds:
    """What the answers say about a rate, at every time.

    Attributes:
        labels: Answers that speak of it.
        estimate: The rate; None without answers.
        lower: Bound from below.
        upper: Bound from above; both hold at all times with the confidence of the record, if the rate stays as it is.
        limit: What the rate should not exceed; None for no limit.
        broken_by: Number of the answer, from 1 among those that speak of it, that refuted the limit; None if none did.
    """

    labels: int
    estimate: float | None
    lower: float
    upper: float
    limit: float | None
    broken_by: int | None


@dataclass(frozen=True)
class FeedbackReport:
    """The state of feedback on a calibration.

    Attributes:
        rows: Number of rows read.
        drawn: Rows drawn for labelling so far.
        new: Of them, drawn now.
        answered: Tasks with an answer.
        not_drawn: Labels of rows that were not drawn; nobody knows why these were chosen, so they count for nothing.
        false_alarms: Share of in-distribution images that are flagged.
        passed_ood: Share of OOD images among those that passed.
        confidence: Of both bounds.
        certificate: As rows of later runs have it.
        withdrawn: Why, as a sentence; "" while it is not.
        path: Of the record.
    """

    rows: int
    drawn: int
    new: int
    answered: int
    not_drawn: int
    false_alarms: RateBounds
    passed_ood: RateBounds
    confidence: float
    certificate: CertificateState
    withdrawn: str
    path: Path

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "path": str(self.path)}


def take_feedback(request: FeedbackRequest) -> FeedbackReport:
    """Draw rows for labelling, take in answers, and tell what they say about the promise.

    Raises:
        UsageError: A value, a label or a file cannot be used; the record stays as it was.
        CalibrationError: The bundle is not calibrated, or rows come from another calibration.
        BundleError: The bundle or the record is damaged.
    """
    bundle = open_bundle(request.bundle)
    calibration = load_calibration(bundle)
    with changing_feedback(bundle, calibration):
        return _take(request, bundle, calibration)


def _take(request: FeedbackRequest, bundle: Bundle, calibration: Calibration) -> FeedbackReport:
    record = _fixed(find_feedback(bundle, calibration), begin_feedback(bundle, calibration), request)
    known, tasks, count = _draw(request.rows, calibration, record)
    new = len(tasks) - len(record.tasks)
    labels = read_labels(request.labels) if request.labels else []
    tasks, not_drawn = _answer(tasks, labels, known)
    record = record.model_copy(update={"tasks": tuple(tasks)})
    false_alarms, passed_ood = assess(record, calibration)
    withdrawn = record.withdrawn or _describe_broken(false_alarms, passed_ood)
    record = FeedbackRecord.model_validate({**record.model_dump(), "withdrawn": withdrawn})
    if request.tasks:
        write_durably(request.tasks, _tasks_csv(record.tasks))
    save_feedback(bundle, calibration, record)
    return FeedbackReport(
        rows=count,
        drawn=len(tasks),
        new=new,
        answered=len(record.answered),
        not_drawn=not_drawn,
        false_alarms=false_alarms,
        passed_ood=passed_ood,
        confidence=record.confidence,
        certificate=state_of(calibration.method, withdrawn=bool(withdrawn)),
        withdrawn=withdrawn,
        path=feedback_path(bundle, calibration),
    )


def _fixed(found: FeedbackRecord | None, fresh: FeedbackRecord, request: FeedbackRequest) -> FeedbackRecord:
    """The record, with what the request asks for if it is new. Raises UsageError for a change of what was fixed."""
    options = {
        "--flagged-share": (request.flagged, "flagged"),
        "--passed-share": (request.passed, "passed"),
        "--seed": (request.seed, "seed"),
        "--confidence": (request.confidence, "confidence"),
        "--max-passed-ood": (request.max_passed_ood, "max_passed_ood"),
    }
    for option, (asked, name) in options.items():
        whole = name in ("flagged", "passed")
        if asked is not None and name != "seed" and not (0 < asked < 1 or (whole and asked == 1)):
            raise UsageError(f"{option} is {asked}; it must be a share between 0 and 1, for example 0.05 or 0.95.")
        has = getattr(found.design if found and hasattr(found.design, name) else found, name, None)
        if found and asked is not None and asked != has:
            raise UsageError(
                f"{option} is {asked}, and the feedback on this calibration was begun with {has}: bounds that hold at "
                "every time need what is fixed before the first answer. Leave the option out."
            )
    if found:
        return found
    design = LabelDesign(**_given(request, ("flagged", "passed", "seed")))
    return fresh.model_copy(update={"design": design, **_given(request, ("confidence", "max_passed_ood"))})


def _given(request: FeedbackRequest, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(request, name) for name in names if getattr(request, name) is not None}


def _draw(
    paths: Sequence[Path], calibration: Calibration, record: FeedbackRecord
) -> tuple[frozenset[str], list[LabelTask], int]:
    """Ids of all rows, the tasks with those drawn from them, and the number of rows."""
    tasks, known, count = {(task.id, task.sha256): task for task in record.tasks}, set[str](), 0
    for path in paths:
        for block in read_rows(path):
            scored = [(count + place, row) for place, row in enumerate(block, 1) if row.status != "rejected"]
            require_own(calibration, scored)
            _require_calibrated(calibration, scored)
            count += len(block)
            for _, row in scored:
                known.add(row.id)
                if record.design.draws(row.id, row.sha256, flagged=bool(row.is_ood)):
                    tasks.setdefault((row.id, row.sha256), _task(row))
    return frozenset(known), list(tasks.values()), count


def _require_calibrated(calibration: Calibration, scored: Sequence[tuple[int, Row]]) -> None:
    """Raise UsageError for a row served at a chosen threshold, of which the calibration does not promise its rate."""
    own = calibration.own_thresholds
    for number, row in scored:
        expected = own.get(-1 if row.predicted_class is None else row.predicted_class, calibration.threshold)
        if row.threshold != expected:
            raise UsageError(
                f"Row {number} ({row.id[:80]!r}) was served at the threshold {row.threshold}, and feedback is about "
                f"the calibrated one, {expected}: give rows served without --threshold and --fpr."
            )


def _task(row: Row) -> LabelTask:
    score = row.score if row.score is not None and math.isfinite(row.score) else None
    return LabelTask(
        id=row.id,
        sha256=row.sha256,
        flagged=bool(row.is_ood),
        score=score,
        predicted_class=row.predicted_class or 0,
    )


def _answer(tasks: list[LabelTask], labels: Sequence[Label], known: frozenset[str]) -> tuple[list[LabelTask], int]:
    """The tasks with the answers of labels, and the number of labels of rows that were not drawn."""
    places = defaultdict[str, list[int]](list)
    for place, task in enumerate(tasks):
        name = picture_name(task.id, task.sha256)
        for key in {f"id {task.id}", f"id {guard_cell(task.id)}", f"name {name}", f"name {PurePosixPath(name).stem}"}:
            places[key].append(place)
    answers: dict[int, Label] = {}
    not_drawn = 0
    for label in labels:
        found = places.get(f"name {label.name}" if label.name else f"id {label.id}", [])
        if label.sha256:
            found = [place for place in found if tasks[place].sha256 == label.sha256]
        if not found:
            _require_known(label, known)
            not_drawn += 1
            continue
        if len(found) > 1:
            raise UsageError(
                f"{label.where}: {label.id or label.name!r} is the id of {len(found)} rows with other contents; add "
                "the column sha256."
            )
        _require_first(label, tasks[found[0]], answers.get(found[0]))
        answers[found[0]] = label
    turn = sum(task.turn is not None for task in tasks)
    answered = list(tasks)
    for place, label in answers.items():
        if tasks[place].answer is None:
            turn += 1
            answered[place] = tasks[place].model_copy(update={"answer": label.answer, "turn": turn})
    return answered, not_drawn


def _require_known(label: Label, known: frozenset[str]) -> None:
    if label.name or not {label.id, _unguarded(label.id)} & known:
        raise UsageError(
            f"{label.where}: there is no row {(label.id or label.name)[:80]!r}. Give all outputs that were labelled as "
            "ROWS, or remove the line; no label was taken."
        )


def _unguarded(cell: str) -> str:
    try:
        return read_cell(cell)
    except ValueError:
        return cell


def _require_first(label: Label, task: LabelTask, other: Label | None) -> None:
    """Raise UsageError where a task has another answer already."""
    said = other.answer if other else task.answer
    if said is not None and said != label.answer:
        where = other.where if other else "an earlier file"
        raise UsageError(
            f"{label.where}: {task.id[:80]!r} is {label.answer!r} here and {said!r} in {where}; decide for one, as an "
            "answer that has counted stays. No label was taken."
        )


def assess(record: FeedbackRecord, calibration: Calibration) -> tuple[RateBounds, RateBounds]:
    """Bounds of the false-alarm rate, and of the share of OOD images among those that passed."""
    answered, design = record.answered, record.design
    alarms = Draws(
        np.array([task.flagged for task in answered if task.answer == "ind"], np.bool_), design.flagged / design.passed
    )
    missed = Draws(np.array([task.answer == "ood" for task in answered if not task.flagged], np.bool_))
    limit = None if calibration.method == "quantile" else false_alarm_limit(calibration)
    limits = sum(value is not None for value in (limit, record.max_passed_ood))
    risk = 1 - record.confidence
    return _bounds(alarms, limit, risk, limits), _bounds(missed, record.max_passed_ood, risk, limits)


def false_alarm_limit(calibration: Calibration) -> float:
    """The rate of all images together that the calibration's promise allows."""
    return max(calibration.alpha, calibration.per_class.overall_bound if calibration.per_class else 0.0)


def _bounds(draws: Draws, limit: float | None, risk: float, limits: int) -> RateBounds:
    count, hits = draws.hits.size, int(draws.hits.sum())
    weighted = hits / draws.ratio
    return RateBounds(
        labels=count,
        estimate=weighted / (weighted + count - hits) if count else None,
        lower=bound_below(draws, risk / 2),
        upper=bound_above(draws, risk / 2),
        limit=limit,
        broken_by=None if limit is None else first_refuted(draws, limit, risk / limits),
    )


def _describe_broken(false_alarms: RateBounds, passed_ood: RateBounds) -> str:
    """Which limit is broken, and by how much; "" if none is."""
    found = []
    for what, bounds in (("false-alarm rate", false_alarms), ("share of OOD images that passed", passed_ood)):
        if bounds.limit is not None and bounds.broken_by is not None:
            found.append(
                f"the {what} exceeds {percent(bounds.limit)}: answer {bounds.broken_by} of {bounds.labels} shows it, "
                f"the estimate is {percent(bounds.estimate or 0.0)}"
            )
    return "; ".join(found)


def _tasks_csv(tasks: Iterable[LabelTask]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "sha256", "label"))
    writer.writerows((guard_cell(task.id), task.sha256, "") for task in tasks if task.answer is None)
    return text.getvalue().encode()
