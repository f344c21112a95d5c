"""Does what an export is asked: makes a bundle or opens one, adds INT8 graphs, builds engines. Imports torch late."""

import importlib

from diffood.errors import MissingExtraError, UsageError
from diffood.export.request import ExportRequest
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.progress import Say


def run_export(request: ExportRequest, report: Say) -> None:
    """Make a bundle of the sources, or open the one there is, and add what else is asked for.

    Args:
        request: What to make.
        report: Gets a line for each thing found, proven or built.

    Raises:
        UsageError: There is nothing to do, or something is missing for it.
        ExportError: A model does not fit, or a proof failed.
        MissingExtraError: A library is not installed.

    """
    _check(request)
    if request.sources is not None:
        _require("torch", "diffusers", "onnx", "onnxscript", "safetensors")
        from diffood.export.build import export_bundle

        export_bundle(request, report)
    if "int8" in request.precisions and request.images:
        _require("onnx", "torch")
        from diffood.export.images import read_sample
        from diffood.export.int8.quantize import IMAGES, quantize_bundle

        shape = open_bundle(request.bundle).manifest.image
        quantize_bundle(
            request.bundle, read_sample(request.images, shape, IMAGES, report, request.columns), report=report
        )
    if request.engines is not None:
        from diffood.export.engines.build import build_engines

        build_engines(request.bundle, request.engines, report)


def _check(request: ExportRequest) -> None:
    """Refuse, before the work, what cannot be done."""
    int8 = "int8" in request.precisions
    held = open_bundle(request.bundle).precisions if request.sources is None else ()
    if request.sources is None and request.engines is None and not (int8 and request.images):
        raise UsageError("--bundle has nothing to add: give --engine, or --precision int8 with --images DIR.")
    if int8 and not request.images and "int8" not in held:
        raise UsageError("int8 needs the value ranges of real images: add --images DIR with in-distribution ones.")


def _require(*packages: str) -> None:
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"`diffood export` needs {error.name}, which is not installed: pip install 'diffood[export]'"
        ) from None
