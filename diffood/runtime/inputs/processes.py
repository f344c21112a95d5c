"""Pools of child processes that answer items one by one, and may crash, hang or be killed: one item is lost."""

import pickle
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from diffood.errors import DiffoodError
from diffood.runtime.child import (
    INVALID,
    Child,
    ChildEnded,
    ChildNotStarted,
    ChildSilent,
    parse_fields,
    start_patiently,
)
from diffood.runtime.inputs.items import Item

Answer = TypeVar("Answer")
LONGEST_HEADER = 2**16  # bytes: a digest, a note and a reason, which are short


@dataclass(frozen=True)
class Work(Generic[Answer]):
    """What the processes of a pool do.

    Attributes:
        module: Its `main(argument)` runs in each process; it gets pickled items and sends a header and bytes for each.
        argument: For `main`.
        environment: Of the processes; None for a bare one.
        done: What is done to an image, for messages: "decoded".
        seconds: Limit for one item.
        most: Bytes that follow a header, at most.
        answer: Makes an answer of the header's fields and those bytes; None where they do not go together.
        refused: Makes an answer of what went wrong, a clause after "The image".
    """

    module: str
    argument: str
    environment: Mapping[str, str] | None
    done: str
    seconds: float
    most: int
    answer: Callable[[dict[str, Any], bytes], Answer | None]
    refused: Callable[[str], Answer]


class ProcessPool(Generic[Answer]):
    """Processes that answer groups of items, each used by one thread at a time and started by it."""

    def __init__(self, work: Work[Answer], count: int) -> None:
        self._work = work
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._all: set[Child] = set()
        self._idle: queue.SimpleQueue[Child | None] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(None)

    def answers(self, items: Sequence[Item]) -> list[Answer]:
        """Answer each item.

        One that ends its process or silences it is tried once more, alone: another item may have been the cause, or
        something outside, as a process that was stopped or killed for memory.
        """
        child, answers, suspect = self._idle.get(), list[Answer](), False
        try:
            while len(answers) < len(items):
                rest = items[len(answers) :]
                child = child or self._start()
                try:
                    for answer in self._ask(child, rest[:1] if suspect else rest):
                        answers.append(answer)
                        suspect = False
                except (ChildSilent, ChildEnded) as end:
                    self._end(child)
                    child = None
                    if suspect:
                        answers.append(self._work.refused(self._describe(end)))
                    suspect = not suspect
        finally:
            self._idle.put(child)
        return answers

    def close(self) -> None:
        """End all processes; threads that wait for one then end too."""
        with self._lock:
            self._closed.set()
            running = list(self._all)
        for child in running:
            child.kill()

    def _describe(self, end: ChildSilent | ChildEnded) -> str:
        if isinstance(end, ChildSilent):
            return f"was not {self._work.done} in {self._work.seconds:g} s, twice"
        return f"ended the process that {self._work.done} it, twice ({end})"

    def _ask(self, child: Child, items: Sequence[Item]) -> Iterator[Answer]:
        """Answers one by one, so that the item at which a process ended is known."""
        child.send(pickle.dumps(list(items)))
        for _ in items:
            header, _, data = child.receive(LONGEST_HEADER + self._work.most, self._work.seconds).partition(b"\n")
            answer = self._work.answer(parse_fields(header), data)
            if answer is None:
                raise ChildEnded(INVALID)
            yield answer

    def _start(self) -> Child:
        """A process that is up. Raises DiffoodError if none starts, ChildEnded once the pool is closed."""
        try:
            return start_patiently(self._start_once, self._closed.wait)
        except ChildNotStarted as failure:
            raise DiffoodError(
                f"A process that reads images did not start ({failure}); look above for the reason, free some memory, "
                "or use --decoders 0."
            ) from None

    def _start_once(self) -> Child:
        with self._lock:
            if self._closed.is_set():
                raise ChildEnded("the run ends")
            child = Child(self._work.module, self._work.argument, environment=self._work.environment)
            self._all.add(child)
        try:
            child.wait_until_up()
        except ChildNotStarted:
            self._end(child)
            raise
        return child

    def _end(self, child: Child) -> None:
        child.kill()
        with self._lock:
            self._all.discard(child)
