"""Fits a fusion on in-distribution files: what each witness usually says there, and the bank of "knn"."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffood.errors import CalibrationError, RejectedImage
from diffood.runtime.detector import Detector
from diffood.runtime.fusion import FittedWitness, Fusion, FusionRecord, bend, pack_bank, unpack_bank
from diffood.runtime.images import DEFAULT_LIMITS, Limits, read_file
from diffood.runtime.plan import Combination
from diffood.runtime.scoring import Float
from diffood.runtime.serving.pipeline import Progress, observe_files
from diffood.runtime.serving.sources import Source
from diffood.runtime.witnesses import Array, Witness, knn, measure

SHARE = 3  # one image in so many is fitted on, the others are calibrated on
MOST_FITTED = 1000  # a mean is known well by then, and a bank of more costs more than it finds
FEWEST_FITTED = 20  # a deviation estimated on fewer is off by more than a sixth
SHRINKAGE = 0.2  # of correlations, so that chance in few images does not decide a weight
FEWEST_FUSED = SHARE * (FEWEST_FITTED - 1) + 1  # with which FEWEST_FITTED are fitted on
ROUNDING = 1e-6  # of a value: ten times float32's, as engines sum; a deviation below it tells nothing of an image

SetAside = tuple[tuple[str, str], ...]  # (id, reason) of files that could not be used


@dataclass(frozen=True)
class FittedFusion:
    """A fusion, the bytes of its bank (b"" without one), and the files that could not be used.

    columns: the values [n] of each witness that it was fitted on.
    """

    fusion: Fusion
    bank: bytes
    set_aside: SetAside
    columns: Mapping[Witness, Float]


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


def split_sources(sources: Sequence[Source], limits: Limits = DEFAULT_LIMITS) -> tuple[list[Source], list[Source]]:
    """Part files into those to fit on and those to calibrate on, each in the order given.

    By the hash of their bytes: the same images are parted alike whatever their names and order, and no property of an
    image but its bytes decides. Copies stay together, but for those of the one image where the parts meet. A file that
    cannot be read goes last, to be reported with the calibration's.
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
    """Fit how the witnesses of the detector's plan are combined.

    Raises CalibrationError for too few usable files, and for witnesses that are not finite or do not vary.
    """
    plan, seen = detector.plan, _observe(detector, sources, limits, progress)
    columns, entry, data, bank = dict(seen.columns), None, b"", None
    if "knn" in plan.witnesses:
        entry, data = pack_bank(seen.features)
        bank = unpack_bank(data, entry.file)  # as it will be read
        # without the image's own row, as a new image has none
        columns["knn"] = np.array([knn(row, bank, in_bank=True) for row in seen.features])
    record = FusionRecord(
        combine=plan.combine,
        witnesses=fit_witnesses({name: columns[name] for name in plan.witnesses}, plan.combine),
        n=len(seen.features),
        bank=entry,
    )
    return FittedFusion(Fusion(record, bank), data, seen.set_aside, columns)


@dataclass(frozen=True)
class _Seen:
    """What is kept of the images: each witness but "knn" float64 [n]; for "knn" features float32 [n, D]."""

    columns: dict[Witness, Float]
    features: Array
    set_aside: SetAside


def _observe(detector: Detector, sources: Iterable[Source], limits: Limits, progress: Progress | None) -> _Seen:
    """Measure image by image: the denoised ones would fill memory. Raises CalibrationError for too few, not finite."""
    wanted = detector.plan.witnesses
    names = tuple(name for name in wanted if name != "knn")  # its bank is not complete yet
    values: list[Float] = []
    features: list[Array] = []
    set_aside: list[tuple[str, str]] = []
    for outcome in observe_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
            continue
        values.append(measure(names, outcome.result))
        row = outcome.result.features if "knn" in wanted else outcome.result.features[:0]
        features.append(row.copy())  # not a view that keeps its batch
        if not (np.isfinite(values[-1]).all() and np.isfinite(row).all()):
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
    columns = dict(zip(names, np.stack(values).T, strict=True))
    return _Seen(columns, np.stack(features), tuple(set_aside))


def describe_set_aside(set_aside: Sequence[tuple[str, str]]) -> str:
    """A sentence that names the first of the files that could not be used; "" where there is none."""
    if not set_aside:
        return ""
    name, reason = set_aside[0]
    return f"The first of {len(set_aside)} that cannot be used is {name!r}: {reason} "


def fit_witnesses(columns: Mapping[Witness, Float], how: Combination) -> tuple[FittedWitness, ...]:
    """Make witnesses [n] comparable, and weigh them. Raises CalibrationError where one does not vary.

    "sum" takes them as they are, all alike. For "tail" each is made nearly normal first, as a heavy tail would make
    what is merely rare look impossible, and weighed by `weigh`.
    """
    fitted, standard = [], []
    for name, values in columns.items():
        center, scale = float(values.mean()), float(values.std(ddof=1))
        if scale <= ROUNDING * abs(center):
            raise CalibrationError(
                f"The witness {name} has mean {center:g} and deviation {scale:g} on these {len(values)} images: "
                f"it does not vary, so it tells nothing. Give images that differ, or leave {name} out with --witnesses."
            )
        found = FittedWitness(name=name, center=center, scale=scale, weight=0.0)
        if how == "tail":
            found = _bent(found, values)
        fitted.append(found)
        standard.append(found.standardised(values))
    weights = weigh(np.array(standard)) if how == "tail" else np.full(len(fitted), 1 / len(fitted))
    return tuple(
        found.model_copy(update={"weight": float(weight)}) for found, weight in zip(fitted, weights, strict=True)
    )


def _bent(witness: FittedWitness, values: Float) -> FittedWitness:
    """With the power under which the values [n] are most likely normal (Yeo and Johnson 2000, sec. 3)."""
    from scipy.stats import yeojohnson_normmax

    standard = (values - witness.center) / witness.scale
    # a power beyond 0 or 2 would bound what bent values can reach, and hide how extreme an image is
    power = float(np.clip(yeojohnson_normmax(standard), 0, 2))
    bent = bend(standard, power)
    center, scale = float(bent.mean()), float(bent.std(ddof=1))
    return witness.model_copy(update={"power": power, "center_bent": center, "scale_bent": scale})


def weigh(standardised: Float) -> Float:
    """Weights [W], 1 together, of standardised witnesses [W, n]: those that say the same share what they say.

    The combination with the least variance on in-distribution images (Bates and Granger 1969, "The combination of
    forecasts"), none below 0, with the correlations shrunk by 1 / (1 + SHRINKAGE).
    """
    correlation = np.corrcoef(standardised).reshape(len(standardised), -1)
    weights = np.linalg.solve(correlation + SHRINKAGE * np.eye(len(correlation)), np.ones(len(correlation)))
    positive = np.maximum(weights, 0)
    return np.asarray(positive / positive.sum())
