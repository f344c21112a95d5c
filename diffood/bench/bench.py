"""`diffood bench`: times every way to run a bundle on this machine, next to the paper's own loop."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diffood.bench.compare import WHY_UNET, Budget, Comparison, compare
from diffood.bench.contenders import our_contenders, plain_contender, plans_of, torch_contenders
from diffood.errors import UsageError
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.backends import BackendChoice
from diffood.runtime.bundle.bundle import Manifest, Precision, open_bundle
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.progress import ShowProgress, hide_progress

OFFICIAL = "reference"  # the bundle's plan that follows the paper's code


@dataclass(frozen=True)
class BenchRequest:
    """What `diffood bench` is asked for.

    Attributes:
        bundle: The bundle's folder.
        images: uint8 [N, C, H, W], taken in turn.
        budget: Seconds and rounds of each contender.
        plans: Names; empty takes all plans of the bundle.
        backend: Engine library; auto takes all that run here.
        precisions: Empty takes all of the bundle.
        batch: See Contender.batch.
        threads: Of the engine; 0 takes all cores.
        models: Torch models the bundle was exported from; None leaves the loop in torch out.
        compiled: Whether to time the loop in torch by torch.compile, too.
        memory: Whether to measure peak memory, in a process for each contender.
    """

    bundle: Path
    images: Pixels
    budget: Budget
    plans: Sequence[str] = ()
    backend: BackendChoice = "auto"
    precisions: Sequence[Precision] = ()
    batch: int = DEFAULT_BATCH
    threads: int = 0
    models: ModelSources | None = None
    compiled: bool = True
    memory: bool = True


@dataclass(frozen=True)
class BenchResult:
    """A comparison, and what it was asked for."""

    request: BenchRequest
    manifest: Manifest
    comparison: Comparison

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, without the images."""
        request, manifest, latent = self.request, self.manifest, self.manifest.latent
        return {
            "bundle": request.bundle.name,
            "unet_parameters": manifest.unet.parameters if manifest.unet else 0,
            "image": asdict(manifest.image),
            "latent": latent and latent.model_dump(include={"channels", "height", "width"}),
            "images": len(request.images),
            "batch": request.batch,
            "threads": request.threads,
            "seconds": request.budget.seconds,
            **self.comparison.as_json(),
        }


def run_bench(request: BenchRequest, show_progress: ShowProgress = hide_progress) -> BenchResult:
    """Time every contender in turns on the same images; what cannot run here is skipped with its reason.

    Raises:
        UsageError: A plan or precision is unknown, or the images do not fit the bundle.
    """
    bundle, batch, threads = open_bundle(request.bundle), request.batch, request.threads
    bundle.require_unet(WHY_UNET)
    shape, given = bundle.manifest.image, request.images.shape[1:]
    if given != (shape.channels, shape.height, shape.width):
        raise UsageError(
            f"{request.bundle} takes images of {shape.channels}x{shape.height}x{shape.width}, these are "
            f"{'x'.join(map(str, given))}: give real ones of its kind with --images DIR."
        )
    official, plans = bundle.plan(OFFICIAL), plans_of(bundle, request.plans)
    ours, unusable = our_contenders(
        bundle, plans, backend=request.backend, precisions=request.precisions, batch=batch, threads=threads
    )
    gpu = any(contender.gpu for contender in ours)  # the others are compared on the same device
    in_torch, skipped = torch_contenders(
        bundle, request.models, official, compiled=request.compiled, batch=batch, threads=threads, gpu=gpu
    )
    contenders = [*in_torch, plain_contender(bundle, official, batch=batch, threads=threads, gpu=gpu), *ours]
    with show_progress("timing", 2 * request.budget.rounds * len(contenders)) as advance:
        found = compare(contenders, request.images, request.budget, memory=request.memory, progress=advance)
    found = replace(found, skipped=(*skipped, *unusable, *found.skipped))
    return BenchResult(request, bundle.manifest, found)
