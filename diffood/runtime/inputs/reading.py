"""How inputs are read, and how a kind of file with several images describes itself. Reads nothing."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.labels import LeftOut
from diffood.runtime.inputs.urls import DEFAULT_URLS, UrlRules
from diffood.runtime.inputs.watch import WatchedFolder

DEFAULT_COLUMN = "image"


@dataclass(frozen=True)
class InputRules:
    """What is read of inputs, whatever the verb.

    Attributes:
        image_column: Column of a table with its images, as bytes or as {bytes, path}.
        id_column: Column with its ids; "": they are row numbers.
        urls: Which URLs are opened.
    """

    image_column: str = DEFAULT_COLUMN
    id_column: str = ""
    urls: UrlRules = DEFAULT_URLS


DEFAULT_RULES = InputRules()


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are read.

    Attributes:
        limits: What one image may cost.
        rules: Columns of tables, and which URLs are opened.
        watch: Folder whose files follow the inputs as they come.
        done: (id, SHA-256) of the rows that exist; their items are skipped.
        stop: Ends live inputs when it is set; a signal handler may set it.
        left_out: Counts the files that are left out on purpose.
        outputs: Real paths of what the run writes, which links and lists do not lead to.
        shuffle: Whether to list everything first and give it in the order of `shuffling`.
    """

    limits: ImageLimits = DEFAULT_LIMITS
    rules: InputRules = DEFAULT_RULES
    watch: WatchedFolder | None = None
    done: Iterable[tuple[str, str]] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    left_out: LeftOut = field(default_factory=LeftOut)
    outputs: tuple[str, ...] = ()
    shuffle: bool = False


def _by_name_only(file: BinaryIO, name: str) -> bool:
    return False


@dataclass(frozen=True)
class ContainerFormat:
    """A kind of file that contains several images; `open.CONTAINERS` lists all kinds.

    Attributes:
        endings: Endings of its names, in lower case.
        list_items: Gives the items of one file lazily, from its place (a path or URL) and the id of the file, with
            which the ids of its items begin. It raises nothing: what cannot be read is a `RefusedItem`.
        recognises: Whether an open file is one by its contents; its name may only help. Raises nothing.
        require: Raises MissingExtraError where a library is missing; called before the work begins.
    """

    endings: tuple[str, ...]
    list_items: Callable[[str, str, ReadOptions], Iterator[Item]]
    recognises: Callable[[BinaryIO, str], bool] = _by_name_only
    require: Callable[[], None] = lambda: None

    def matches(self, name: str) -> bool:
        """Whether a file of this name is one."""
        return name.lower().endswith(self.endings)
