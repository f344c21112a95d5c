"""What inputs come to: the bytes of each item by its id, or why it is refused."""

from collections.abc import Sequence

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.open import open_inputs
from diffood.runtime.inputs.reading import InputRules, ReadOptions
from diffood.runtime.inputs.urls import UrlRules


def read_items(inputs: Sequence[str], limits: ImageLimits, urls: UrlRules) -> dict[str, bytes | str]:
    """Read everything; no item is a pause."""
    found: dict[str, bytes | str] = {}
    for item in open_inputs(inputs, ReadOptions(limits, InputRules(urls=urls))):
        assert isinstance(item, Item)
        try:
            found[item.id] = item.read(limits)
        except RejectedImage as error:
            found[item.id] = str(error)
    return found
