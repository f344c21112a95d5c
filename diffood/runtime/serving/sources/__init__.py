"""What a user names becomes items to score: files, shards, tables, URLs, a watched folder. A module a kind of input."""

from diffood.runtime.inputs.files import expand_inputs
from diffood.runtime.inputs.items import PAUSE, Item, Pause, Source

__all__ = ["PAUSE", "Item", "Pause", "Source", "expand_inputs"]
