"""Gathers the images that `tune` uses, in groups; decodes files one at a time and keeps none in memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from diffood.calibration.fusing.split import FEWEST_FITTED, digest
from diffood.calibration.scored_files import IND, SetAside, describe_set_aside
from diffood.calibration.tuning.made_ood import MAKINGS, Making
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.images.conversions import kinds_of
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits, ImageShape
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.inputs.items import Item

FIT = "fit"  # the half of the in-distribution images that fusions are fitted on; IND is the half that measures
FEWEST_IND = 2 * FEWEST_FITTED
FEWEST_OOD = 2  # an interval needs two


@dataclass(frozen=True)
class ImageGroup:
    """Images that can be read as often as needed, in the same order.

    Attributes:
        count: Number of images.
        read: Yields them, uint8 [C, H, W].
    """

    count: int
    read: Callable[[], Iterator[Pixels]]


@dataclass(frozen=True)
class UsableFiles:
    """Files that can be used.

    Attributes:
        files: With the sha256 of their bytes, in ascending order of that hash, no bytes twice.
        set_aside: Files that could not be used.
        conversions: Number of `files` by kind of change while they were read.
    """

    files: tuple[tuple[Item, str], ...]
    set_aside: SetAside
    conversions: Counter[str]


@dataclass(frozen=True)
class TuningImages:
    """The images of a tuning.

    Attributes:
        groups: By name: FIT (for fusions and stage limits), IND (for measuring), then the OOD sets.
        used: sha256 of the bytes of every in-distribution file used.
        made: Whether the OOD sets were made from FIT.
        set_aside: Files that could not be used.
        conversions: By set, number of files by kind of change while they were read; IND stands for both halves.
    """

    groups: Mapping[str, ImageGroup]
    used: tuple[str, ...]
    made: bool
    set_aside: SetAside
    conversions: Mapping[str, Counter[str]]

    @property
    def count(self) -> int:
        """Number of images in all groups."""
        return sum(group.count for group in self.groups.values())


def take_files(
    sources: Sequence[Item], shape: ImageShape, most: int, limits: ImageLimits = DEFAULT_LIMITS
) -> UsableFiles:
    """Up to `most` usable files, the first by the hash of their bytes: names and order do not matter."""
    digests = [digest(source, limits) for source in sources]
    hashed = {sha256: source for source, sha256 in zip(sources, digests, strict=True) if sha256}
    unread = [source for source, sha256 in zip(sources, digests, strict=True) if not sha256]
    files: list[tuple[Item, str]] = []
    set_aside = [(source.id, source.load(shape, limits).error) for source in unread]
    conversions = Counter[str]()
    for sha256, source in sorted(hashed.items()):
        if len(files) == most:
            break
        loaded = source.load(shape, limits)
        if loaded.pixels is None:
            set_aside.append((source.id, loaded.error))
        else:
            files.append((source, sha256))
            conversions.update(kinds_of(loaded.note))
    return UsableFiles(tuple(files), tuple(set_aside), conversions)


def gather_images(
    ind: Sequence[Item],
    ood: Mapping[str, Sequence[Item]],
    shape: ImageShape,
    most: int,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> TuningImages:
    """Split up to `most` InD files into halves, and take half as many files of each OOD set, or make OOD sets.

    OOD images are made from the half that fits: made from the half that measures they would not be independent of it,
    as the intervals assume. For the same reason no two made sets share an image. Raises CalibrationError, with the
    number needed, for too few usable files.
    """
    taken = take_files(ind, shape, most, limits)
    if len(taken.files) < FEWEST_IND:
        raise CalibrationError(
            f"{len(taken.files)} usable in-distribution images are too few to tune on: at least {FEWEST_IND} are "
            "needed (half to fit, half to measure), and some hundreds are better. "
            f"{describe_set_aside(taken.set_aside)}Add images, or raise --images."
        )
    halves = {FIT: taken.files[::2], IND: taken.files[1::2]}
    groups = {name: _of_files(files, shape, limits) for name, files in halves.items()}
    set_aside, conversions = [*taken.set_aside], {IND: taken.conversions}
    for name, sources in ood.items():
        found = take_files(sources, shape, most // 2, limits)
        set_aside += [(f"{name}/{identity}", reason) for identity, reason in found.set_aside]
        if len(found.files) < FEWEST_OOD:
            raise CalibrationError(
                f"The OOD set {name} has {len(found.files)} usable images; at least {FEWEST_OOD} are needed, and some "
                f"hundreds are better. {describe_set_aside(found.set_aside)}Add images, or leave the set out."
            )
        conversions[name] = found.conversions
        groups[name] = _of_files(found.files, shape, limits)
    if not ood:
        groups |= _made(halves[FIT], shape, limits)
    return TuningImages(groups, tuple(sha256 for _, sha256 in taken.files), not ood, tuple(set_aside), conversions)


def _of_files(files: Sequence[tuple[Item, str]], shape: ImageShape, limits: ImageLimits) -> ImageGroup:
    def read() -> Iterator[Pixels]:
        for source, sha256 in files:
            yield _load(source, sha256, shape, limits)

    return ImageGroup(len(files), read)


def _made(files: Sequence[tuple[Item, str]], shape: ImageShape, limits: ImageLimits) -> dict[str, ImageGroup]:
    """OOD sets of equal size, each made from different files."""
    count = len(files) // sum(making.takes for making in MAKINGS.values())
    rest = iter(files)
    parts = {name: tuple(islice(rest, count * making.takes)) for name, making in MAKINGS.items()}
    return {name: _made_of(_of_files(part, shape, limits), MAKINGS[name]) for name, part in parts.items()}


def _made_of(group: ImageGroup, making: Making) -> ImageGroup:
    def read() -> Iterator[Pixels]:
        images = group.read()
        while inputs := tuple(islice(images, making.takes)):
            yield making.make(*inputs)

    return ImageGroup(group.count // making.takes, read)


def _load(item: Item, sha256: str, shape: ImageShape, limits: ImageLimits) -> Pixels:
    loaded = item.load(shape, limits)
    if loaded.pixels is None or loaded.sha256 != sha256:
        raise UsageError(f"{item.place} changed while `diffood tune` ran; leave the images unchanged and start again.")
    return loaded.pixels
