"""The door of this room: one request in, one row per file written, one result out.

What happens in which order:

    1. the names of outputs are checked      nothing was opened yet
    2. the scorer is opened                  the calibration is checked against the engine that runs
    3. the inputs are opened, lazily         an input that names nothing fails here, before the output is touched
    4. the output is entered                 locked; with --resume its rows are compared with this run's settings
    5. rows are written                      batch.py, watched by watched.py; from here on a stop can be resumed
    6. the summary is written                and the output gets its name
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffood import __version__
from diffood.errors import EXIT_SET_ASIDE, UsageError
from diffood.runtime.bundle.feedback import begin_feedback, find_feedback
from diffood.runtime.inputs.counting import count_in_background
from diffood.runtime.inputs.files import is_folder
from diffood.runtime.inputs.labels import LeftOut
from diffood.runtime.inputs.open import STANDARD_INPUT, open_inputs
from diffood.runtime.inputs.outputs import refuse_outputs_inside
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.method.discoveries import OnlineSelection
from diffood.runtime.progress import Say
from diffood.runtime.stop import Stop, handle_signals
from diffood.runtime.writable import require_writable
from diffood.serving.batch import BatchJob, existing_rows
from diffood.serving.completing import RowCompletion, describe_limit, state_of
from diffood.serving.feedback_record import changing_feedback, save_feedback
from diffood.serving.labelling import LabelFolder
from diffood.serving.output.journal import RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.open import open_output
from diffood.serving.output.summary import Summary, Tally, read_summary
from diffood.serving.request import ServeRequest
from diffood.serving.rows.grouping import FolderOrder
from diffood.serving.rows.readers import read_rows
from diffood.serving.scorer import OpenedScorer, open_scorer
from diffood.serving.watched import serve_watched


@dataclass(frozen=True)
class ServeProgress:
    """What is known of a run that has begun.

    Attributes:
        total: Returns the number of files, None while it is not known.
        resumed: Rows from earlier runs.
        tally: Counts, which go on changing.
    """

    total: Callable[[], int | None]
    resumed: int
    tally: Tally


@contextlib.contextmanager
def _no_progress(progress: ServeProgress) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def _ignore(text: str) -> None:
    """Say nothing."""


def _do_nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class ServeObserver:
    """What a caller is told during a run.

    Attributes:
        show_progress: Entered when rows begin; gives a function that is told how many more rows were written.
        say: Is told one line for the user.
        on_resumable: Called when the run ends before its end with rows that a resume would continue from.
    """

    show_progress: Callable[[ServeProgress], AbstractContextManager[Callable[[int], None]]] = _no_progress
    say: Say = _ignore
    on_resumable: Callable[[], None] = _do_nothing


@dataclass(frozen=True)
class ServeResult:
    """What a run did.

    Attributes:
        summary: Counts of the rows.
        engine: One line that says what scored them.
        exit_code: Of the process: 0, 3 if files were set aside, or the shell's code for the signal that stopped it.
        sorted_by_class: Whether the rows of this run came folder by folder, from folders named like classes.
    """

    summary: Summary
    engine: str
    exit_code: int
    sorted_by_class: bool = False

    def as_json(self) -> dict[str, Any]:
        """What `serve-batch --json` prints."""
        return {**self.summary.model_dump(mode="json", exclude={"run", "sha256"}), "engine": self.engine}


def serve(request: ServeRequest, stop: Stop, observer: ServeObserver = ServeObserver()) -> ServeResult:
    """Score all inputs of a request and write one row per file.

    Args:
        request: What to do.
        stop: Is connected to SIGINT and SIGTERM while rows are written.
        observer: Is told how it goes.

    Raises:
        UsageError: The request contradicts itself, the inputs or the rows that exist.
        KeyboardInterrupt: A second signal came; the rows so far are kept.
        DiffoodError: Of any kind; the message says whether rows are kept.
    """
    fdr, online = request.output.fdr, request.inputs.watch is not None
    _require_share(fdr)
    if request.output.labels and request.scorer.choice:
        raise UsageError("--export-labels asks about the calibrated threshold: leave --threshold and --fpr out.")
    selects_last = fdr is not None and not online
    layout = OutputLayout.of(request.output.path, request.output.format_name, completed_last=selects_last)
    _refuse_outputs_inside(request, layout)
    _require_places(request, layout)
    scorer = replace(request.scorer, pictures=request.output.save_flagged is not None)
    summary: Summary
    with open_scorer(scorer) as opened:
        job = _prepare(request, layout, opened, stop)
        try:
            with job.output, handle_signals(stop):
                if damaged := job.output.damaged:
                    observer.say(
                        f"damaged     {damaged} rows of {layout.path} were changed or removed by something else; their "
                        "images are scored again"
                    )
                if job.output.finished:
                    summary = read_summary(layout.summary, layout.path)
                else:
                    total = (lambda: None) if request.inputs.watch else count_in_background(request.inputs.names)
                    progress = ServeProgress(total, job.output.resumed, job.tally)
                    with observer.show_progress(progress) as advance:
                        summary = serve_watched(replace(job, on_row=lambda row: advance(1)), request, observer.say)
        except UsageError:  # nothing could be resumed with these arguments
            raise
        except BaseException:
            if job.output.resumable:
                observer.on_resumable()
            raise
    if job.output.resumable:
        observer.on_resumable()
    if job.labels and summary.state == "finished":
        _write_tasks(job.labels, request, observer.say)
    if fdr is not None and (limit := describe_limit(opened.calibration, fdr, summary.scored, job.completion.online)):
        observer.say(f"selected    {limit}")
    set_aside = EXIT_SET_ASIDE if summary.rejected or summary.invalid else 0
    exit_code = stop.exit_code if stop.requested else set_aside
    classes = set(opened.bundle.manifest.class_names)
    return ServeResult(summary, opened.engine, exit_code, _sorted_by_class(job.tally.order, classes))


def _write_tasks(labels: LabelFolder, request: ServeRequest, say: Say) -> None:
    count = labels.write_tasks(itertools.chain.from_iterable(read_rows(request.output.path)))
    say(f"to label    {count} files in {request.output.labels}")
    if labels.not_kept:
        say(f"not kept    {labels.not_kept} files to label; they changed or went away after they were scored")


def _sorted_by_class(order: FolderOrder, classes: Set[str]) -> bool:
    return order.grouped and len(classes & set(order.folders)) > 1


def _require_places(request: ServeRequest, layout: OutputLayout) -> None:
    """Refuse, before models are loaded, places that cannot be written to."""
    places = (
        (request.output.path, "--output", layout.is_dataset),
        (request.output.save_flagged, "--save-flagged", True),
        (request.output.labels, "--export-labels", True),
        (request.log, "--log", False),
    )
    for path, option, folder in places:
        if path is not None:
            require_writable(path, option, folder=folder)


def _written(request: ServeRequest) -> dict[str, Path | None]:
    return {
        "--output": request.output.path,
        "--save-flagged": request.output.save_flagged,
        "--export-labels": request.output.labels,
        "--log": request.log,
    }


def _refuse_outputs_inside(request: ServeRequest, layout: OutputLayout) -> None:
    inputs = request.inputs
    names = [*inputs.names, *([os.fspath(inputs.watch.folder)] if inputs.watch else [])]
    refuse_outputs_inside(names, _written(request))
    for path in (layout.summary, layout.journal, layout.partial):  # which a pattern may match where it misses the rows
        refuse_outputs_inside([name for name in names if not is_folder(name)], {"--output": path})


def _prepare(request: ServeRequest, layout: OutputLayout, opened: OpenedScorer, stop: Stop) -> BatchJob:
    """The job of a request, with its output not yet entered."""
    inputs, left_out = request.inputs, LeftOut()
    tally = Tally(left_out, opened.certificate)
    output = open_output(layout, _run_record(request, layout, opened), request.output.mode)
    live = inputs.watch is not None or STANDARD_INPUT in inputs.names  # no order that a resume would find again
    done = existing_rows(output, tally) if live else ()
    reading = ReadOptions(
        limits=request.scorer.limits,
        rules=inputs.rules,
        watch=inputs.watch,
        done=done,
        stop=stop.event,
        left_out=left_out,
        outputs=tuple(os.path.realpath(path) for path in _written(request).values() if path is not None),
        shuffle=inputs.shuffle,
    )
    completion = _completion(request, opened)
    tally.certificate = completion.certificate
    return BatchJob(
        opened.scorer,
        open_inputs(inputs.names, reading),
        output,
        live,
        tally,
        stop,
        labels=_label_folder(request, opened),
        completion=completion,
    )


def _completion(request: ServeRequest, opened: OpenedScorer) -> RowCompletion:
    """What is added to rows: a stream is selected row by row, any other batch once all rows are there."""
    fdr = request.output.fdr
    online = OnlineSelection(fdr) if fdr is not None and request.inputs.watch else None
    return RowCompletion(state_of(opened.certificate.kind, withdrawn=bool(opened.certificate.withdrawn)), online)


def _label_folder(request: ServeRequest, opened: OpenedScorer) -> LabelFolder | None:
    """Where pictures for labelling go; the design by which they are drawn is then fixed beside the bundle."""
    if request.output.labels is None:
        return None
    with changing_feedback(opened.bundle, opened.calibration):
        record = find_feedback(opened.bundle, opened.calibration)
        if record is None:
            record = begin_feedback(opened.bundle, opened.calibration)
            save_feedback(opened.bundle, opened.calibration, record)
    return LabelFolder(request.output.labels, request.scorer.limits, record.design)


def _require_share(fdr: float | None) -> None:
    if fdr is not None and not 0 < fdr < 1:  # NaN neither
        raise UsageError(f"--fdr is {fdr}; it must be a share strictly between 0 and 1, for example 0.1.")


def _run_record(request: ServeRequest, layout: OutputLayout, opened: OpenedScorer) -> RunRecord:
    """Everything that the rows of a request depend on, except its inputs."""
    scorer, rules, saved = request.scorer, request.inputs.rules, request.output.save_flagged
    return RunRecord(
        diffood=__version__,
        fingerprint=opened.fingerprint,
        calibration_sha256=opened.calibration.sha256,
        bundle_digest=opened.bundle.digest,
        batch=scorer.batch,
        threads=opened.threads,
        max_bytes=scorer.limits.max_bytes,
        max_pixels=scorer.limits.max_pixels,
        decode_timeout=scorer.decode_timeout,
        image_column=rules.image_column,
        id_column=rules.id_column,
        rows=layout.format.name,
        part_rows=request.output.part_rows,
        save_flagged=str(saved.absolute()) if saved else None,
        fdr=request.output.fdr,
        threshold=scorer.choice.threshold,
        fpr=scorer.choice.fpr,
    )
