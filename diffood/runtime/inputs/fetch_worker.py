"""The child process that reads images over the network: pickled items come in, a line of JSON and bytes go out.

decoding.py starts it. It keeps the environment and the network, which decoding gives up, and decodes nothing.
"""

import json
from dataclasses import asdict, dataclass

from diffood.runtime.child import answer_items, serve_parent
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import InlineItem, Item, RefusedItem
from diffood.runtime.json_reader import parse_object

SLACK_MEGABYTES = 512  # for fsspec with its threads, and what it loads for a protocol


@dataclass(frozen=True)
class FetchTask:
    """What a fetching process is told at its start; `seconds` is the limit for one image."""

    limits: ImageLimits
    seconds: float

    def as_json(self) -> str:
        """The argument of the process."""
        return json.dumps(asdict(self))


def main(argument: str) -> None:
    """Answer groups of items until the parent closes the pipe or is gone."""
    given = parse_object(argument.encode())
    task = FetchTask(ImageLimits(**given["limits"]), given["seconds"])
    pipe = serve_parent(SLACK_MEGABYTES + 2 * task.limits.max_bytes // 2**20, confined=False)

    def answer(item: Item) -> tuple[dict[str, str], bytes]:
        found = item.fetched(task.limits)
        error = found.reason if isinstance(found, RefusedItem) else ""
        return {"error": error}, found.data if isinstance(found, InlineItem) else b""

    answer_items(pipe, task.seconds, answer)
