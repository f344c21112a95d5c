"""diffood report: one HTML file about a calibrated bundle."""

from pathlib import Path
from typing import Annotated

import typer

from diffood.cli import progress
from diffood.cli.options import shared as options
from diffood.cli.options.inputs import InputOptions
from diffood.cli.options.machine import MachineOptions
from diffood.cli.options.records import expand_records
from diffood.cli.options.sets import NamedSet, collect_sets, sets_option
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_lines
from diffood.runtime.inputs.outputs import refuse_outputs_inside


@expand_records
def report(
    *,
    bundle: options.BundlePath,
    ind: Annotated[list[str], options.images_option("Fresh in-distribution test images.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The HTML file to write.")],
    ood: Annotated[list[NamedSet] | None, sets_option("An OOD set; repeatable.")] = None,
    machine: MachineOptions,
    reading: InputOptions,
    trust: TrustOptions,
) -> None:
    """Write one HTML page about a calibrated bundle.

    What was fitted, what is guaranteed, and how it performs on test images. The page needs no other file.

    Example: diffood report bundle --ind test --ood digits=ood/digits --output report.html
    """
    from diffood.calibration.evaluate import EvaluateRequest
    from diffood.cli.text.conversions import describe_conversions_by_set
    from diffood.report.report import ReportRequest, make_report

    tests = EvaluateRequest(bundle, tuple(ind), collect_sets(ood), engine=machine.request(), rules=reading.request())
    refuse_outputs_inside(tests.inputs, {"--output": output})
    written = make_report(ReportRequest(tests, output), progress.show_progress)
    aside = {name: len(files) for name, files in written.set_aside.items() if files}
    print_lines(f"scored      {', '.join(f'{count} of {name}' for name, count in written.scored.items())}")
    found = [(name, written.conversions[name], count) for name, count in written.scored.items()]
    print_lines(*describe_conversions_by_set(found))
    if aside:
        print_lines(f"set aside   {', '.join(f'{count} of {name}' for name, count in aside.items())}")
    print_lines(f"wrote       {written.path} ({written.path.stat().st_size / 1e6:.1f} MB)")
    options.exit_if_sets_aside(written.set_aside)
