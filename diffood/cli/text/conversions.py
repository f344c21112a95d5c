"""What verbs print of images that were changed while they were read. Prints nothing itself."""

from collections.abc import Iterable, Mapping

from diffood.runtime.images.conversions import conversion_text


def describe_conversions(counts: Mapping[str, int], images: int, of: str = "") -> list[str]:
    """A line with the number of images by kind of change; none where nothing was changed."""
    return [f"converted   {text}"] if (text := conversion_text(counts, images, of)) else []


def describe_conversions_by_set(sets: Iterable[tuple[str, Mapping[str, int], int]]) -> list[str]:
    """A line for each set, given as (name, counts, images), in which images were changed."""
    return [line for name, counts, images in sets for line in describe_conversions(counts, images, name)]
