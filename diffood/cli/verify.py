"""diffood verify: checks that this machine gives what the bundle promises."""

import json
from typing import Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.sets import named_folders
from diffood.errors import EXIT_FAILED, EXIT_SET_ASIDE
from diffood.runtime.bundle.parity import ParityLimits
from diffood.runtime.detector import DEFAULT_BATCH

_DEFAULT = ParityLimits()


def verify(
    bundle: options.BundlePath,
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT", help="In-distribution images to compare verdicts on; best: fresh ones."),
    ] = None,
    ood: Annotated[list[str] | None, typer.Option(metavar="NAME=DIR", help="An OOD set, to compare AUROC on.")] = None,
    backend: options.BackendName = "auto",
    precision: Annotated[str, typer.Option(metavar="P[,P]", help="Precisions to verify; all without.")] = "",
    max_flips: Annotated[float, typer.Option(help="Share of verdicts that may flip.", min=0, max=1)] = _DEFAULT.flips,
    max_auroc_shift: Annotated[
        float, typer.Option(help="How far the AUROC of any OOD set may move.", min=0, max=1)
    ] = _DEFAULT.auroc_shift,
    batch: options.Batch = DEFAULT_BATCH,
    threads: options.Threads = 0,
    as_json: options.AsJson = False,
) -> None:
    """Check a bundle on this machine: hashes, golden values, the engines' contract, and decision parity.

    With --images every variant that can run here is judged against the calibrated one; the result is stored in the
    bundle, and a variant that passed may be served.

    Example: diffood verify bundle --images fresh --ood digits=ood/digits
    """
    from diffood.calibration.verify import VerifyRequest, verify_bundle

    request = VerifyRequest(
        bundle=bundle,
        images=tuple(images or ()),
        ood={name: (folder,) for name, folder in named_folders(ood or []).items()},
        backend=backend,
        precisions=options.precision_list(precision),
        limits=ParityLimits(flips=max_flips, auroc_shift=max_auroc_shift),
        batch=batch,
        threads=threads,
    )
    result = verify_bundle(request, progress.show_progress)
    if as_json:
        typer.echo(json.dumps(result.as_json()))
    else:
        for check in result.checks:
            mark = {True: "ok", False: "FAILED", None: "skipped"}[check.passed]
            typer.echo(f"{check.what:<10}{check.subject:<28}{mark:<9}{check.detail}")
    options.report_set_aside(result.set_aside)
    if any(check.passed is False for check in result.checks):
        raise typer.Exit(EXIT_FAILED)
    if result.set_aside:
        raise typer.Exit(EXIT_SET_ASIDE)
