"""Counts how images were changed while they were read, from the notes that `decode` writes. Changes nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from diffood.runtime.images.modes import OVER_BLACK

RESIZED, STRETCHED = "resized", "stretched to another aspect ratio"
OTHER = "changed otherwise"  # rows of other versions may have other notes; the kinds stay a handful
_KINDS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"resized from \d+x\d+ and stretched"), (RESIZED, STRETCHED)),
    (re.compile(r"resized from \d+x\d+"), (RESIZED,)),
    (re.compile(OVER_BLACK), ("alpha dropped",)),
    (re.compile(r"reduced from 16 bits to 8"), ("16 bits to 8",)),
    (re.compile(r"rotated by its EXIF tag"), ("rotated by EXIF",)),
    (re.compile(r"its EXIF data is damaged and was ignored"), ("damaged EXIF ignored",)),
    (re.compile(r"converted from grey to RGB"), ("grey to RGB",)),
    (re.compile(r"converted from RGB to grey"), ("RGB to grey",)),
    (re.compile(r"converted from (CMYK|YCbCr|LAB)"), ("other colour space to RGB",)),
    (re.compile(r"first of the \d+ pictures of an MPO"), ("first of several pictures",)),
)


def kinds_of(note: str) -> tuple[str, ...]:
    """The kinds of change in the note of one image, without its numbers; () for an empty note.

    Stretched images, whose aspect ratio changed, are resized too.
    """
    return tuple(kind for part in note.split("; ") if part for kind in _kinds_of_part(part))


def count_kinds(notes: Iterable[str]) -> Counter[str]:
    """Number of images by kind of change, from the note of each image."""
    return Counter(kind for note in notes for kind in kinds_of(note))


def conversion_text(counts: Mapping[str, int], images: int, of: str = "") -> str:
    """The counts in words, the most frequent kind first; "" where nothing was changed. `of` names the set of images."""
    if not counts:
        return ""
    named = [f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda entry: -entry[1])]
    return f"of {images} images{f' of {of}' if of else ''}: {', '.join(named)}"


def _kinds_of_part(part: str) -> tuple[str, ...]:
    for pattern, kinds in _KINDS:
        if pattern.fullmatch(part):
            return kinds
    return (OTHER,)
