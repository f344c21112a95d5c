"""Refuses, before any model is opened, an export that would fail later: by its sources, place, images or builder."""

import importlib.util
from pathlib import Path

from diffood.errors import ExportError, MissingExtraError, UsageError
from diffood.export.engines.build import choose_plans, require_builder
from diffood.export.request import FEWEST_IMAGES, IMAGES, ExportRequest
from diffood.export.sources.classifiers.registry import LIBRARIES
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import MANIFEST, open_bundle
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import PLANS, PLANS_WITHOUT_UNET
from diffood.runtime.writable import is_free, require_writable

EXTRA = ("torch", "diffusers", "onnx", "onnxscript", "safetensors")  # what an export of models imports
EXTRA_OF_GRAPHS = ("onnx", "torch")  # what fp16 and int8 of a bundle do


def require_possible(request: ExportRequest) -> None:
    """Check what can be checked in a second.

    Raises:
        UsageError: There is nothing to do, or something is missing for it.
        ExportError: A file of the sources is not there.
        MissingExtraError: A library is not installed.

    """
    _require_work(request)
    _require_installed(request)
    if request.sources is None:
        require_writable(request.bundle, "--bundle", folder=True)
    else:
        require_free(request.bundle, overwrite=request.overwrite)
        _require_sources(request.sources)
        require_writable(request.bundle, "--output", folder=True, needed=_bytes_of(request.sources))
    if "int8" in request.precisions and request.images:
        _require_images(request)
    if request.engines is not None:
        _require_plans(request, request.engines.plans)
        require_builder(request.engines)


def _require_work(request: ExportRequest) -> None:
    if writes_detectors_only(request):
        return
    int8 = "int8" in request.precisions
    held = open_bundle(request.bundle).precisions if request.sources is None else ()
    if request.sources is None and request.engines is None and not (int8 and request.images) and not adds_fp16(request):
        has = f" ({request.bundle} has {', '.join(held)})"
        raise UsageError(
            f"--bundle has nothing to add{has}: give --engine, --precision fp16, or --precision int8 with --images DIR."
        )
    if int8 and not request.images and "int8" not in held:
        raise UsageError("int8 needs the value ranges of real images: add --images DIR with in-distribution ones.")


def writes_detectors_only(request: ExportRequest) -> bool:
    """Whether a bundle is named and nothing to add: its detector files are written again."""
    return request.sources is None and request.engines is None and not request.precisions and not request.images


def _require_plans(request: ExportRequest, names: tuple[str, ...]) -> None:
    """Refuse plans that the bundle does not have, or will not have."""
    if request.sources is None:
        choose_plans(open_bundle(request.bundle), names)
        return
    plans = PLANS_WITHOUT_UNET if request.sources.unet is None else PLANS
    if missing := [name for name in names if name not in plans]:
        raise UsageError(f"--engine-plan {missing[0]!r} is not a plan of a new bundle; it has: {', '.join(plans)}.")


def adds_fp16(request: ExportRequest) -> bool:
    """Whether FP16 graphs are to be made of the FP32 graphs of a bundle that has none."""
    return (
        request.sources is None
        and "fp16" in request.precisions
        and "fp16" not in open_bundle(request.bundle).precisions
    )


def _require_installed(request: ExportRequest) -> None:
    changes = ("int8" in request.precisions and request.images) or adds_fp16(request)
    needed = EXTRA if request.sources is not None else EXTRA_OF_GRAPHS if changes else ()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise missing_extra(missing[0])


def missing_extra(package: str) -> MissingExtraError:
    """The error for a package of the extra `export` that is not installed."""
    return MissingExtraError(f"`diffood export` needs {package}, which is not installed: pip install 'diffood[export]'")


def require_free(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is not ours to replace."""
    if is_free(output):
        return
    if not (output / MANIFEST).is_file():
        raise UsageError(
            f"{output} exists and is not a bundle; choose another --output, since an export replaces the folder."
        )
    if not overwrite:
        raise UsageError(f"{output} is already a bundle; choose another --output, or replace it with --overwrite.")


def _require_sources(sources: ModelSources) -> None:
    """Refuse files that are not there, and libraries that are not installed."""
    classifier = sources.classifier
    library = LIBRARIES.get(classifier.kind)
    if library and importlib.util.find_spec(library) is None:
        raise MissingExtraError(
            f"`{classifier.kind}:` needs {library}, which is not installed: pip install 'diffood[classifiers]'"
        )
    named = {"--unet": sources.unet, "--classifier-weights": classifier.weights, "--scheduler": sources.scheduler}
    if classifier.kind in ("onnx", "transformers"):
        named["--classifier"] = Path(classifier.name)
    elif classifier.kind not in LIBRARIES:
        named["--classifier"] = Path(classifier.spec.rpartition(":")[0])
    for option, path in named.items():
        if path is not None and not path.exists():
            raise ExportError(f"No such file or folder: {option} {path}; check the path.")


def _require_images(request: ExportRequest) -> None:
    """Refuse, before the graphs are made, too few images for the value ranges of int8."""
    count = len(list_inputs(request.images, request.rules))
    if count < FEWEST_IMAGES:
        raise UsageError(
            f"{count} images are too few to calibrate int8 graphs: give at least {FEWEST_IMAGES} in-distribution "
            f"images, better {IMAGES}."
        )


def _bytes_of(sources: ModelSources) -> int:
    """Bytes of the weights, which a bundle has at least once."""
    files = [sources.unet, sources.classifier.weights]
    return sum(
        part.stat().st_size
        for path in files
        if path is not None
        for part in (path.rglob("*.safetensors") if path.is_dir() else [path])
    )
