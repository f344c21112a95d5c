"""Fits a fusion on in-distribution files: what each witness usually says there, and the bank of features."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffood.calibration.fusing.fitting import fit_witnesses
from diffood.calibration.fusing.staged import fit_stage
from diffood.calibration.scored_files import SetAside
from diffood.errors import CalibrationError, RejectedImage
from diffood.runtime.bundle.fusion import Fusion, FusionRecord, pack_bank, unpack_bank
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.items import Item
from diffood.runtime.method.scoring import Array, Float
from diffood.runtime.method.witnesses.registry import Witness, measurable, measure, measure_in_bank, need_bank
from diffood.runtime.pipeline import Progress, observe_files

SHARE = 3  # one image in so many is fitted on, the others are calibrated on
MOST_FITTED = 1000  # a mean is known well by then, and a bank of more costs more than it finds
FEWEST_FITTED = 20  # a deviation estimated on fewer is off by more than a sixth
FEWEST_FUSED = SHARE * (FEWEST_FITTED - 1) + 1  # with which FEWEST_FITTED are fitted on


@dataclass(frozen=True)
class FittedFusion:
    """A fusion, the bytes of its bank (b"" without one), and the files that could not be used.

    columns: by number of repeats, the last of them all, the values [n] of each witness that it was fitted on.
    """

    fusion: Fusion
    bank: bytes
    set_aside: SetAside
    columns: Mapping[int, Mapping[Witness, Float]]


def fitted_count(count: int) -> int:
    """How many of count images a fusion is fitted on."""
    return min(math.ceil(count / SHARE), MOST_FITTED)


def fused_required(needed: int) -> int:
    """Smallest number of images that leaves `needed` for the threshold and FEWEST_FITTED for the fusion."""
    total = max(needed, FEWEST_FUSED)
    while total - fitted_count(total) < needed:
        total += 1
    return total


def require_enough_fused(count: int, needed: int) -> None:
    """Raise CalibrationError, naming the number, where count images cannot give both parts what they need."""
    total = fused_required(needed)
    if count < total:
        rate = "accept a higher --fpr, " if count >= FEWEST_FUSED else ""  # below, no rate makes them enough
        raise CalibrationError(
            f"{count} images are too few: {needed} are needed for the threshold and at least {FEWEST_FITTED} others to "
            f"fit how witnesses are combined, so {total} in all (one in {SHARE} is fitted on). Add images, {rate}"
            "or use a plan of one witness: --plan plain."
        )


@dataclass(frozen=True)
class Parts:
    """Files to fit on and files to calibrate on. tuned: how many of those to fit on `diffood tune` has looked at."""

    fit: list[Item]
    calibrate: list[Item]
    tuned: int


def split_sources(
    sources: Sequence[Item], limits: ImageLimits = DEFAULT_LIMITS, tuned: Collection[str] = (), *, fused: bool = True
) -> Parts:
    """Part files into those to fit on and those to calibrate on, each in the order given.

    By the hash of their bytes: the same images are parted alike whatever their names and order, and no property of an
    image but its bytes decides. Copies stay together, but for those of the one image where the parts meet. A file that
    cannot be read goes last, to be reported with the calibration's.

    tuned: hashes of images a plan was chosen on. They are fitted on, all of them and before others: a threshold from
    scores that chose the plan would promise too much. Without a fusion only they are kept from the calibration.
    """
    digests = [digest(source, limits) for source in sources]
    seen = [bool(found) and found in tuned for found in digests]
    # an empty digest, of what is unreadable, goes after every hexadecimal one
    order = sorted(range(len(sources)), key=lambda k: (not seen[k], not digests[k], digests[k], k))
    fitted = set(order[: max(sum(seen), fitted_count(len(sources)) if fused else 0)])
    return Parts(
        [source for index, source in enumerate(sources) if index in fitted],
        [source for index, source in enumerate(sources) if index not in fitted],
        sum(seen),
    )


def digest(source: Item, limits: ImageLimits = DEFAULT_LIMITS) -> str:
    """The sha256 of an item's bytes, "" where they cannot be read."""
    try:
        return hashlib.sha256(source.read(limits)).hexdigest()
    except RejectedImage:
        return ""


def fit_fusion(
    detector: Detector, sources: Iterable[Item], limits: ImageLimits = DEFAULT_LIMITS, progress: Progress | None = None
) -> FittedFusion:
    """Fit how the witnesses of the detector's plan are combined.

    Raises CalibrationError for too few usable files, and for witnesses that are not finite or do not vary.
    """
    plan, seen = detector.plan, _observe(detector, sources, limits, progress)
    entry, data, bank = None, b"", None
    of_rows: dict[Witness, Float] = {}
    if banked := need_bank(plan.witnesses):
        entry, data = pack_bank(seen.features)
        bank = unpack_bank(data, entry.file)  # as it will be read
        # without the image's own row, as a new image has none
        of_rows = {name: measure_in_bank(name, seen.features, bank) for name in banked}
    columns = {}
    for repeats, others in seen.columns.items():
        found = others | of_rows
        columns[repeats] = {name: found[name] for name in measurable(plan.witnesses, repeats)}
    record = FusionRecord(
        combine=plan.combine,
        witnesses=fit_witnesses(columns[plan.repeats], plan.combine),
        n=len(seen.features),
        bank=entry,
        stages=tuple(fit_stage(repeats, columns[repeats], plan.combine) for repeats in plan.stages),
    )
    return FittedFusion(Fusion(record, bank), data, seen.set_aside, columns)


@dataclass(frozen=True)
class _Seen:
    """What is kept of the images: features float32 [n, D] for the bank, columns for the witnesses without one.

    columns: by number of repeats, each witness float64 [n].
    """

    columns: dict[int, dict[Witness, Float]]
    features: Array
    set_aside: SetAside


def _observe(detector: Detector, sources: Iterable[Item], limits: ImageLimits, progress: Progress | None) -> _Seen:
    """Measure image by image: the denoised ones would fill memory. Raises CalibrationError for too few, not finite."""
    wanted = detector.plan.witnesses
    banked = need_bank(wanted)  # whose bank is not complete yet
    others = tuple(name for name in wanted if name not in banked)
    stops = (*detector.plan.stages, detector.plan.repeats)
    names = {repeats: measurable(others, repeats) for repeats in stops}
    values: list[list[Float]] = []
    features: list[Array] = []
    set_aside: list[tuple[str, str]] = []
    for outcome in observe_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
            continue
        values.append([measure(names[repeats], outcome.result.first(repeats)) for repeats in stops])
        row = outcome.result.features if banked else outcome.result.features[:0]
        features.append(row.copy())  # not a view that keeps its batch
        if not (all(np.isfinite(found).all() for found in values[-1]) and np.isfinite(row).all()):
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
    return _Seen(columns, np.stack(features), tuple(set_aside))


def describe_set_aside(set_aside: Sequence[tuple[str, str]]) -> str:
    """A sentence that names the first of the files that could not be used; "" where there is none."""
    if not set_aside:
        return ""
    name, reason = set_aside[0]
    return f"The first of {len(set_aside)} that cannot be used is {name!r}: {reason} "
