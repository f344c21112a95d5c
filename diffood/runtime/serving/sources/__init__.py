"""What a user names becomes items to score: files, shards, tables, URLs, a watched folder. A module a kind of input."""

from diffood.runtime.serving.sources.files import expand_inputs
from diffood.runtime.serving.sources.items import PAUSE, Item, Pause, Source

__all__ = ["PAUSE", "Item", "Pause", "Source", "expand_inputs"]
