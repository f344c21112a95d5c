"""How a long run tells what it does: the functions that it is given. Shows nothing itself."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Say = Callable[[str], None]  # called with a line for the user
Progress = Callable[[int], None]  # called with the number of items done since the last call
Total = int | Callable[[], int | None]


class ShowProgress(Protocol):
    """Shows the progress of a task while its context is open."""

    def __call__(
        self, what: str, total: Total, done: int = 0, state: Callable[[], str] | None = None, /
    ) -> AbstractContextManager[Progress]:
        """Open the context.

        Args:
            what: Name of the task.
            total: Number of items, or a function that returns it, None as long as it is unknown.
            done: Items that were finished earlier.
            state: Returns a few words to show after the count.
        """


@contextmanager
def hide_progress(
    what: str, total: Total, done: int = 0, state: Callable[[], str] | None = None, /
) -> Iterator[Progress]:
    """The `ShowProgress` that shows nothing."""
    del what, total, done, state
    yield lambda count: None
