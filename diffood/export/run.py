"""Does what an export is asked: makes a bundle, adds FP16 and INT8 graphs, builds engines. Imports torch late."""

from diffood.export.preflight import (
    EXTRA,
    EXTRA_OF_GRAPHS,
    adds_fp16,
    require_possible,
    writes_detectors_only,
)
from diffood.export.request import IMAGES, ExportRequest
from diffood.export.sources.libraries import require_packages
from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.trust import NOTHING_ASKED, Trust
from diffood.runtime.progress import Say, ShowProgress, hide_progress


def run_export(request: ExportRequest, report: Say, show_progress: ShowProgress = hide_progress) -> None:
    """Make a bundle of the sources, or open the one there is, and add what else is asked for.

    Where a bundle is named and nothing to add, its detector files are written again.

    Args:
        request: What to make.
        report: Gets a line for each thing found, proven or built.
        show_progress: Shows how many proofs are done.

    Raises:
        UsageError: There is nothing to do, or something is missing for it.
        ExportError: A model does not fit, or a proof failed.
        MissingExtraError: A library is not installed.

    """
    require_possible(request)
    own: Trust | None = None  # nothing is asked of a bundle that was changed here
    if writes_detectors_only(request):
        written = write_detectors(open_bundle(request.bundle))
        report(f"detectors   {', '.join(entry.file for entry in written.files)}")
    if request.sources is not None:
        require_packages("diffood export", *EXTRA)
        from diffood.export.build import export_bundle

        export_bundle(request, report, show_progress)
        own = NOTHING_ASKED
    elif adds_fp16(request):
        require_packages("diffood export", *EXTRA_OF_GRAPHS)
        from diffood.export.halve import halve_bundle

        halve_bundle(request.bundle, report, request.proof)
        own = NOTHING_ASKED
    if "int8" in request.precisions and request.images:
        require_packages("diffood export", *EXTRA_OF_GRAPHS)
        from diffood.export.images import read_sample
        from diffood.export.int8.quantize import quantize_bundle

        shape = open_bundle(request.bundle, own).manifest.image
        quantize_bundle(
            request.bundle,
            read_sample(request.images, shape, IMAGES, report, request.rules),
            report=report,
            proof=request.proof,
            trust=own,
        )
        own = NOTHING_ASKED
    if request.engines is not None:
        from diffood.export.engines.build import build_engines

        build_engines(request.bundle, request.engines, report, own)
