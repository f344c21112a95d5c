"""diffood feedback: what people's answers on served images say about the promise."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_result
from diffood.errors import EXIT_ALARM

_DRAW, _LIMITS = "Draw, fixed by the first call", "Limits, fixed by the first call"


@expand_records
def feedback(
    *,
    bundle: options.BundlePath,
    rows: Annotated[
        list[Path] | None, typer.Argument(metavar="ROWS...", help="Files or folders of serve-batch, oldest first.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answers: CSV with id, label (ind, ood), or JSON of Label Studio or CVAT."),
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what is to be labelled as CSV, with empty labels.")
    ] = None,
    flagged_share: Annotated[
        float | None, typer.Option(help="Share of flagged rows to label; 1 at first.", rich_help_panel=_DRAW)
    ] = None,
    passed_share: Annotated[
        float | None, typer.Option(help="Share of other rows to label; 0.05 at first.", rich_help_panel=_DRAW)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws other rows.", min=0, rich_help_panel=_DRAW)] = None,
    confidence: Annotated[
        float | None,
        typer.Option(help="Of never withdrawing a true certificate; 0.95 at first.", rich_help_panel=_LIMITS),
    ] = None,
    max_passed_ood: Annotated[
        float | None,
        typer.Option(help="Also withdraw if more of what passed is OOD than this share.", rich_help_panel=_LIMITS),
    ] = None,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Check the promise of a bundle by people's answers on images that it served.

    Draws which rows to label, takes the answers, and withdraws the certificate when they refute it: exit code 4.

    Example: diffood feedback bundle monday.jsonl --tasks tasks.csv

    Example: diffood feedback bundle monday.jsonl --labels tasks.csv
    """
    from diffood.calibration.feedback.feedback import FeedbackRequest, take_feedback
    from diffood.cli.text.feedback import describe_feedback

    report = take_feedback(
        FeedbackRequest(
            bundle=bundle,
            rows=tuple(rows or ()),
            labels=labels,
            flagged=flagged_share,
            passed=passed_share,
            seed=seed,
            confidence=confidence,
            max_passed_ood=max_passed_ood,
            tasks=tasks,
        )
    )
    print_result(report, describe_feedback, as_json)
    if report.withdrawn:
        raise typer.Exit(EXIT_ALARM)
