"""Which images of a test set a bundle was made with, by the hashes of their bytes. Scores nothing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from diffood.calibration.scored_files import IND
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.trained import DIGITS, load_trained
from diffood.runtime.bundle.tuning import load_tuned

CALIBRATED, TUNED, TRAINED = "calibrated", "tuned", "trained"
_OF_IND = {
    CALIBRATED: "the bundle was calibrated on: what is measured on them is no check of the guarantee",
    TUNED: "`diffood tune` chose the plan on: what is measured on them is optimistic",
    TRAINED: "the UNet was trained on: what is measured on them is no check of the guarantee",
}
_OF_OOD = {
    CALIBRATED: "the bundle was calibrated on, as in-distribution: calibrate again without them",
    TUNED: "`diffood tune` used as in-distribution: tune again without them",
    TRAINED: "the UNet was trained on, as in-distribution: train without them",
    IND: "are also in-distribution test images: give each image to one set",
}


@dataclass(frozen=True)
class SeenImages:
    """Short hashes of images that were used before, by what used them: CALIBRATED, TUNED, TRAINED.

    A file that was saved again has other bytes and is not recognised.
    """

    by_use: dict[str, Collection[str]] = field(default_factory=dict)

    def counts(self, hashes: Sequence[str], ind: Sequence[str] = (), name: str = IND) -> dict[str, int]:
        """How many of the files with these hashes were used, by what used them; uses of none are left out.

        In a set that is not the in-distribution one, files that are also in that one are counted as IND.
        """
        uses = self.by_use if name == IND else {**self.by_use, IND: _short(ind)}
        counts = {use: sum(found[:DIGITS] in known for found in hashes) for use, known in uses.items()}
        return {use: count for use, count in counts.items() if count}


NOTHING_SEEN = SeenImages()


def load_seen(bundle: Bundle, calibration: Calibration | None = None) -> SeenImages:
    """The images that a bundle was made with. Raises BundleError as `load_tuned` and `load_trained` do."""
    return SeenImages(
        {
            CALIBRATED: _short((calibration and calibration.images) or ()),
            TUNED: _short(load_tuned(bundle)),
            TRAINED: load_trained(bundle),
        }
    )


def _short(hashes: Collection[str]) -> frozenset[str]:
    return frozenset(found[:DIGITS] for found in hashes)


def describe_seen(seen: Mapping[str, Mapping[str, int]], images: Mapping[str, int]) -> list[str]:
    """A sentence for each use that images of a set had before; `seen` by set and use, `images` the size of each set."""
    return [
        f"{count} of {images[name]} images {'' if name == IND else f'of {name} '}"
        f"{(_OF_IND if name == IND else _OF_OOD)[use]}"
        for name, uses in seen.items()
        for use, count in uses.items()
    ]
