"""Fits a fusion on in-distribution files: the usual values of each witness, and the bank of features."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from diffood.calibration.fusing.bank import ComparedImages
from diffood.calibration.fusing.split import FEWEST_FITTED
from diffood.calibration.fusing.stages import fit_stage
from diffood.calibration.fusing.witnesses import fit_witnesses
from diffood.calibration.scored_files import SetAside, describe_set_aside
from diffood.errors import CalibrationError
from diffood.runtime.bundle.fusion import Fusion, FusionRecord, pack_bank
from diffood.runtime.detector import Detector
from diffood.runtime.images.conversions import kinds_of
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.items import Item
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.registry import Witness, measurable, measure, need_bank
from diffood.runtime.pipeline import observe_files
from diffood.runtime.progress import Progress


@dataclass(frozen=True)
class FittedFusion:
    """A fitted fusion.

    Attributes:
        fusion: How witnesses are combined.
        bank: Bytes of the bank of features; b"" without one.
        set_aside: Files that could not be used.
        columns: Values of each witness that it was fitted on, float64 [n], by number of repeats, the plan's last.
        sha256: Of the bytes of the n files.
        conversions: Number of files by kind of change while they were read.
    """

    fusion: Fusion
    bank: bytes
    set_aside: SetAside
    columns: Mapping[int, Mapping[Witness, Float]]
    sha256: tuple[str, ...]
    conversions: Counter[str]


def fit_fusion(
    detector: Detector,
    sources: Iterable[Item],
    limits: ImageLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    see: Callable[[Evidence], None] | None = None,
) -> FittedFusion:
    """Fit how the witnesses of the detector's plan are combined. `see` is called with the evidence of every image.

    Raises CalibrationError for too few usable files, and for witnesses that are not finite or do not vary.
    """
    plan, measured = detector.plan, _measure_files(detector, sources, limits, progress, see)
    compared = measured.compared.fit()
    bank = {name: found.reference for name, found in compared.items()} or None
    entry, data = pack_bank(bank) if bank else (None, b"")
    own = {name: found.own for name, found in compared.items()}
    columns = {}
    for repeats, others in measured.columns.items():
        found = others | own
        columns[repeats] = {name: found[name] for name in measurable(plan.witnesses, repeats)}
    record = FusionRecord(
        combine=plan.combine,
        witnesses=fit_witnesses(columns[plan.repeats], plan.combine),
        n=len(measured.sha256),
        bank=entry,
        stages=tuple(fit_stage(repeats, columns[repeats], plan.combine) for repeats in plan.stages),
    )
    return FittedFusion(Fusion(record, bank), data, measured.set_aside, columns, measured.sha256, measured.conversions)


@dataclass(frozen=True)
class _Measured:
    """What is kept of the images.

    Attributes:
        columns: By number of repeats, each witness that needs no bank, float64 [n].
        compared: What the bank is fitted on.
        set_aside: Files that could not be used.
        sha256: As in `FittedFusion`.
        conversions: As in `FittedFusion`.
    """

    columns: dict[int, dict[Witness, Float]]
    compared: ComparedImages
    set_aside: SetAside
    sha256: tuple[str, ...]
    conversions: Counter[str]


def _measure_files(
    detector: Detector,
    sources: Iterable[Item],
    limits: ImageLimits,
    progress: Progress | None,
    see: Callable[[Evidence], None] | None,
) -> _Measured:
    """Measure image by image: the denoised ones would fill memory. Raises CalibrationError as `fit_fusion` does."""
    wanted = detector.plan.witnesses
    banked = need_bank(wanted)  # measured later, once the bank is complete
    others = tuple(name for name in wanted if name not in banked)
    stops = (*detector.plan.stages, detector.plan.repeats)
    names = {repeats: measurable(others, repeats) for repeats in stops}
    values: list[list[Float]] = []
    compared = ComparedImages(banked)
    set_aside: list[tuple[str, str]] = []
    hashes, conversions = list[str](), Counter[str]()
    for outcome in observe_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
            continue
        if see:
            see(outcome.result)
        hashes.append(outcome.loaded.sha256)
        conversions.update(kinds_of(outcome.loaded.note))
        values.append([measure(names[repeats], outcome.result.first(repeats)) for repeats in stops])
        finite = compared.add(outcome.result) and all(np.isfinite(found).all() for found in values[-1])
        if not (outcome.result.sound and finite):
            raise CalibrationError(
                f"The models give values that are not finite on {outcome.source.id!r}, so witnesses cannot be fitted "
                "on it. Remove the image, or check the bundle's precision and the models."
            )
    if len(values) < FEWEST_FITTED:
        raise CalibrationError(
            f"Only {len(values)} of the {len(values) + len(set_aside)} images set aside to fit the combination of "
            f"witnesses can be used; at least {FEWEST_FITTED} are needed. {describe_set_aside(set_aside)}"
            "Replace the broken files or add images."
        )
    columns = {
        repeats: dict(zip(names[repeats], np.stack(found).T, strict=True))
        for repeats, found in zip(stops, zip(*values, strict=True), strict=True)
    }
    return _Measured(columns, compared, tuple(set_aside), tuple(hashes), conversions)
