"""Fits a fusion on in-distribution files: what each witness usually says there, and the bank of "knn"."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from diffood.errors import CalibrationError, RejectedImage
from diffood.runtime.detector import Detector
from diffood.runtime.fusion import FittedWitness, Fusion, FusionRecord, pack_bank, unpack_bank
from diffood.runtime.images import DEFAULT_LIMITS, Limits, read_file
from diffood.runtime.scoring import Float, unit
from diffood.runtime.serving.pipeline import Progress, observe_files
from diffood.runtime.serving.sources import Source
from diffood.runtime.witnesses import Array, measure

SHARE = 3  # one image in so many is fitted on, the others are calibrated on
MOST_FITTED = 1000  # a mean is known well by then, and a bank of more costs more than it finds
FEWEST_FITTED = 20  # a deviation estimated on fewer is off by more than a sixth


@dataclass(frozen=True)
class FittedFusion:
    """A fusion, the bytes of its bank (b"" without one), and the (id, reason) of files that could not be used."""

    fusion: Fusion
    bank: bytes
    set_aside: tuple[tuple[str, str], ...]


def fitted_count(count: int) -> int:
    """How many of count images a fusion is fitted on."""
    return min(math.ceil(count / SHARE), MOST_FITTED)


def fused_required(needed: int) -> int:
    """Fewest images that leave `needed` to calibrate on and at least FEWEST_FITTED others to fit a fusion on."""
    return next(n for n in range(needed, 2 * needed + 2 * SHARE * FEWEST_FITTED) if _both(n, needed))


def require_enough_fused(count: int, needed: int) -> None:
    """Raise CalibrationError, naming the number, where count images cannot give both parts what they need."""
    total = fused_required(needed)
    if count < total:
        raise CalibrationError(
            f"{count} images are too few: {needed} are needed for the threshold and at least {FEWEST_FITTED} others to "
            f"fit how witnesses are combined, so {total} in all (one in {SHARE} is fitted on). Add images, accept a "
            "higher --fpr, or use a plan of one witness: --plan plain."
        )


def _both(count: int, needed: int) -> bool:
    fitted = fitted_count(count)
    return fitted >= FEWEST_FITTED and count - fitted >= needed


def split_sources(sources: Sequence[Source], limits: Limits = DEFAULT_LIMITS) -> tuple[list[Source], list[Source]]:
    """Part files into those to fit on and those to calibrate on, each in the order given.

    By the hash of their bytes: the same images are parted alike whatever their names and order, and no property of an
    image but its bytes decides. A file that cannot be read goes last, to be reported with the calibration's.
    """
    order = sorted(range(len(sources)), key=lambda index: (_digest(sources[index], limits), index))
    fitted = set(order[: fitted_count(len(sources))])
    return (
        [source for index, source in enumerate(sources) if index in fitted],
        [source for index, source in enumerate(sources) if index not in fitted],
    )


def _digest(source: Source, limits: Limits) -> str:
    try:
        return hashlib.sha256(read_file(source.path, limits)).hexdigest()
    except RejectedImage:
        return "unreadable"  # after every hexadecimal digit


def fit_fusion(
    detector: Detector, sources: Iterable[Source], limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None
) -> FittedFusion:
    """Fit how the witnesses of the detector's plan are combined. Raises CalibrationError for too few usable files.

    Values of "knn" are taken without the image's own row, as a new image has none.
    """
    plan, set_aside, evidence = detector.plan, [], []
    for outcome in observe_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
        else:
            evidence.append(outcome.result)
    if len(evidence) < FEWEST_FITTED:
        raise CalibrationError(
            f"Only {len(evidence)} of the {len(evidence) + len(set_aside)} images set aside to fit the combination of "
            f"witnesses can be used; at least {FEWEST_FITTED} are needed. Replace the broken files or add images."
        )
    entry, data, bank = None, b"", None
    if "knn" in plan.witnesses:
        entry, data = pack_bank(_unit_rows([found.features for found in evidence]))
        bank = unpack_bank(data, entry.file)  # as it will be read
    values = np.stack([measure(plan.witnesses, found, bank, in_bank=True) for found in evidence])
    return FittedFusion(
        Fusion(
            FusionRecord(
                combine=plan.combine,
                witnesses=tuple(
                    FittedWitness(name=name, center=center, scale=scale)
                    for name, (center, scale) in zip(plan.witnesses, map(_usual, values.T), strict=True)
                ),
                n=len(evidence),
                bank=entry,
            ),
            bank,
        ),
        data,
        tuple(set_aside),
    )


def _unit_rows(features: Sequence[Array]) -> Array:
    return unit(np.stack(features)).astype(np.float32)


def _usual(values: Float) -> tuple[float, float]:
    """Mean and standard deviation of a witness [n] on in-distribution images. Raises CalibrationError for no finite."""
    center, scale = float(values.mean()), float(values.std(ddof=1))
    if not math.isfinite(center) or not scale > 0:
        raise CalibrationError(
            f"A witness has mean {center} and deviation {scale} on these images, so it cannot be combined: the models "
            "give no finite or no varying values on them. Check the bundle's precision, or that the images differ."
        )
    return center, scale
