"""Splits calibration files into those a fusion is fitted on and those the threshold is fitted on."""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from diffood.errors import CalibrationError, RejectedImage
from diffood.runtime.bundle.trained import DIGITS
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.items import Item

SHARE = 3  # a fusion is fitted on one image of three, the threshold on the others
MOST_FITTED = 1000  # enough for a mean; a larger bank costs more than it finds
FEWEST_FITTED = 20  # a standard deviation estimated on fewer is off by more than a sixth
FEWEST_FUSED = SHARE * (FEWEST_FITTED - 1) + 1  # of these, FEWEST_FITTED are for the fusion


def fitted_count(count: int) -> int:
    """The number of images, of count in all, that a fusion is fitted on."""
    return min(math.ceil(count / SHARE), MOST_FITTED)


def fused_required(needed: int) -> int:
    """The smallest number of images that leaves `needed` for the threshold and FEWEST_FITTED for the fusion."""
    total = max(needed, FEWEST_FUSED)
    while total - fitted_count(total) < needed:
        total += 1
    return total


def require_enough_fused(count: int, needed: int) -> None:
    """Raise CalibrationError, with the number needed, where count images are too few for both parts."""
    total = fused_required(needed)
    if count < total:
        rate = "accept a higher --fpr, " if count >= FEWEST_FUSED else ""  # below, no rate makes them enough
        raise CalibrationError(
            f"{count} images are too few: {needed} are needed for the threshold and at least {FEWEST_FITTED} others to "
            f"fit how witnesses are combined, so {total} in all (one in {SHARE} is fitted on). Add images, {rate}"
            "or use a plan of one witness: --plan plain."
        )


@dataclass(frozen=True)
class SplitFiles:
    """Files in two parts, each in the order given.

    Attributes:
        fit: The fusion is fitted on these; without a fusion, files kept from the threshold.
        calibrate: The threshold is fitted on these.
        tuned: Number of files in `fit` that `diffood tune` has used.
    """

    fit: list[Item]
    calibrate: list[Item]
    tuned: int


def split_sources(
    sources: Sequence[Item], limits: ImageLimits = DEFAULT_LIMITS, tuned: Collection[str] = (), *, fused: bool = True
) -> SplitFiles:
    """Split files into those a fusion is fitted on and those the threshold is fitted on.

    The split goes by the hash of the bytes: the same images are split alike whatever their names and order, and no
    other property of an image decides. Copies stay together, except those of the one image at the boundary. A file
    that cannot be read goes to the part of the threshold, to be reported with it.

    Args:
        sources: The files.
        limits: Of their sizes.
        tuned: Hashes of images that a plan was chosen on. All of them go to the part of the fusion: a threshold from
            scores that chose the plan would promise too much.
        fused: Whether there is a fusion to fit; without one only the tuned images are kept from the threshold.
    """
    digests = [digest(source, limits) for source in sources]
    seen = [bool(found) and found in tuned for found in digests]
    # an empty digest, of what is unreadable, goes after every hexadecimal one
    order = sorted(range(len(sources)), key=lambda k: (not seen[k], not digests[k], digests[k], k))
    fitted = set(order[: max(sum(seen), fitted_count(len(sources)) if fused else 0)])
    return SplitFiles(
        [source for index, source in enumerate(sources) if index in fitted],
        [source for index, source in enumerate(sources) if index not in fitted],
        sum(seen),
    )


def leave_out(
    sources: Sequence[Item], known: Collection[str], limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[Sequence[Item], int]:
    """The files whose hashes do not begin with one of the known beginnings, and how many others there are."""
    if not known:
        return sources, 0
    kept = [source for source in sources if digest(source, limits)[:DIGITS] not in known]
    return kept, len(sources) - len(kept)


def digest(source: Item, limits: ImageLimits = DEFAULT_LIMITS) -> str:
    """The sha256 of an item's bytes; "" where they cannot be read."""
    try:
        return hashlib.sha256(source.read(limits)).hexdigest()
    except RejectedImage:
        return ""
