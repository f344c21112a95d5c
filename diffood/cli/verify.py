"""diffood verify: checks that this machine gives what the bundle promises."""

from typing import Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.machine import VariantOptions
from diffood.cli.options.records import expand_records
from diffood.cli.options.sets import NamedSet, collect_sets, sets_option
from diffood.cli.options.trust import TrustOptions, warn_if_unsigned
from diffood.cli.printing import print_result
from diffood.errors import EXIT_FAILED
from diffood.runtime.bundle.parity import ParityLimits

_DEFAULT = ParityLimits()


@expand_records
def verify(
    *,
    bundle: options.BundlePath,
    images: Annotated[
        list[str] | None,
        options.images_option("Fresh in-distribution images to compare verdicts on."),
    ] = None,
    ood: Annotated[list[NamedSet] | None, sets_option("An OOD set, to compare AUROC on; repeatable.")] = None,
    max_flips: Annotated[float, typer.Option(help="Share of verdicts that may flip.", min=0, max=1)] = _DEFAULT.flips,
    max_auroc_shift: Annotated[
        float, typer.Option(help="How far the AUROC of any OOD set may move.", min=0, max=1)
    ] = _DEFAULT.auroc_shift,
    machine: VariantOptions,
    reading: InputOptions,
    trust: TrustOptions,
    as_json: options.AsJson = False,
) -> None:
    """Check that a bundle gives its verdicts on this machine.

    Hashes, golden values, the engines' contract and, with --images, decision parity: every variant that can run here
    is judged against the calibrated one. The result is stored in the bundle, and a variant that passed may be served.

    Example: diffood verify bundle --images fresh --ood digits=ood/digits
    """
    from diffood.calibration.verify import VerifyRequest, verify_bundle
    from diffood.cli.text.verification import describe_verification

    request = VerifyRequest(
        bundle=bundle,
        images=tuple(images or ()),
        ood=collect_sets(ood),
        backend=machine.backend_name,
        precisions=machine.precision or (),
        limits=ParityLimits(flips=max_flips, auroc_shift=max_auroc_shift),
        batch=machine.batch,
        threads=machine.threads,
        rules=reading.request(),
    )
    result = verify_bundle(request, progress.show_progress)
    print_result(result, describe_verification, as_json)
    warn_if_unsigned(bundle)
    if not result.passed:
        options.print_set_aside(result.set_aside)
        raise typer.Exit(EXIT_FAILED)
    options.exit_if_set_aside(result.set_aside)
