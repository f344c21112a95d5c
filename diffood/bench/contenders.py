"""What is timed: our detector with each plan, precision and backend, and the paper's loop in numpy and in torch."""

import itertools
from collections.abc import Collection, Mapping
from functools import partial

from diffood.bench.compare import Contender
from diffood.bench.metered import open_detector
from diffood.bench.plain_loop import open_plain_loop
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.backends import BackendChoice, define
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.calibration import find_calibration
from diffood.runtime.detector import BATCHES_PER_TURN
from diffood.runtime.method.plan import Plan
from diffood.runtime.sessions.backends import examine_backend
from diffood.runtime.sessions.choice import list_candidates

EAGER, COMPILED = "torch eager", "torch.compile"
ON_CPU = "on the CPU, although others run on the GPU: no CUDA here for it"
CALIBRATED = "calibrated"  # the name of a calibration's plan where the bundle has none for it
UNCALIBRATED = "not calibrated for this plan: the pass is timed, its witnesses are not combined into a score"

Skipped = list[tuple[str, str]]
"""Contenders that cannot run here, as (name, reason)."""


def plans_of(bundle: Bundle, names: Collection[str] = ()) -> dict[str, Plan]:
    """The plans named, or all there are: the manifest's, and the calibration's where it is another.

    Raises UsageError for a name that is unknown.
    """
    plans = dict(bundle.manifest.plans)
    calibration = find_calibration(bundle)
    if calibration and calibration.fingerprint.plan not in plans.values():
        plans[CALIBRATED] = calibration.fingerprint.plan
    return {name: plans[name] if name in plans else bundle.plan(name) for name in names or plans}


def our_contenders(
    bundle: Bundle,
    plans: Mapping[str, Plan],
    *,
    backend: BackendChoice = "auto",
    precisions: Collection[Precision] = (),
    batch: int,
    threads: int,
) -> tuple[list[Contender], Skipped]:
    """The detector with each plan on every backend and precision that can run here; what cannot, with its reason."""
    contenders, calibration = [], find_calibration(bundle)
    skipped: dict[tuple[str, str], None] = {}  # once for all plans
    calibrated = calibration.fingerprint.plan if calibration else None
    for precision, (name, plan) in itertools.product(precisions or bundle.precisions, plans.items()):
        candidates = list_candidates(bundle, None, backend, precision, batch, plan)
        skipped |= {(f"diffood, {engine}", reason): None for engine, reason in candidates.skipped}
        contenders += [
            Contender(
                name=f"diffood, {name} plan, {precision} on {found.backend}",
                open=partial(open_detector, bundle.path, plan, found.backend, precision, threads),
                batch=batch,
                chunk=batch * (BATCHES_PER_TURN if plan.stages else 1),  # later stages take what earlier ones gather
                single_batches=(1,),
                note=UNCALIBRATED if plan.fused and plan != calibrated else "",
                gpu=define(found.backend).gpu,
            )
            for found in candidates.usable
        ]
    return contenders, list(skipped)


def plain_contender(bundle: Bundle, plan: Plan, *, batch: int, threads: int, gpu: bool = False) -> Contender:
    """The loop most people write around an exported UNet: ONNX Runtime a step, guidance and update in numpy.

    gpu: on the CUDA provider where this machine has it.
    """
    usable = gpu and examine_backend("onnxruntime-cuda", None).usable
    chunk, note = max(1, batch // plan.repeats), "guidance and update in numpy"
    return Contender(
        name="official loop, ONNX Runtime a step, fp32",
        open=partial(open_plain_loop, bundle.path, plan, threads, usable),
        batch=batch,
        chunk=chunk,
        single_batches=(plan.repeats,),
        note=f"{note}; {ON_CPU}" if gpu and not usable else note,
        gpu=usable,
    )


def torch_contenders(
    bundle: Bundle, models: ModelSources | None, plan: Plan, *, compiled: bool, batch: int, threads: int, gpu: bool
) -> tuple[list[Contender], Skipped]:
    """The paper's loop in torch, eager and, where `compiled`, by torch.compile; or why there is none.

    gpu: on the GPU where torch sees one, in FP32 and in FP16.
    """
    ways = (EAGER, COMPILED) if compiled else (EAGER,)
    names = {(way, "fp32"): f"official loop, {way}, fp32" for way in ways}
    try:
        from diffood.bench.torch_loop import TorchVariant, open_torch_loop, sees_gpu
    except ImportError as error:
        return [], [(name, f"needs {error.name}: pip install 'diffood[export]'") for name in names.values()]
    if models is None:
        reason = "the torch models are unknown: give --unet and --classifier as for `diffood export`"
        return [], [(name, reason) for name in names.values()]
    usable = gpu and sees_gpu()
    if usable:
        names |= {(way, "fp16"): f"official loop, {way}, fp16" for way in ways}
    return [
        Contender(
            name=name,
            open=partial(
                open_torch_loop,
                bundle.path,
                models,
                plan,
                threads,
                TorchVariant(compiled=way == COMPILED, half=precision == "fp16", gpu=usable),
            ),
            batch=batch,
            chunk=max(1, batch // plan.repeats),
            single_batches=(plan.repeats,),
            note=ON_CPU if gpu and not usable else "",
            gpu=usable,
        )
        for (way, precision), name in names.items()
    ], []
