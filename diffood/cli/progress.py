"""Progress: a bar on a terminal, a plain line now and then elsewhere; always on standard error."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0


@contextlib.contextmanager
def show_progress(
    what: str, total: int | None, done: int = 0, state: Callable[[], str] | None = None
) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more are done.

    total: of how many, None where that is not known; done: from before; state: words shown beside the count.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(what, total, done, state)
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task, start = bar.add_task(what, total=total, completed=done, rate=""), time.monotonic()

        def advance(count: int) -> None:
            fresh = bar.tasks[0].completed + count - done
            rate = f"{fresh / max(1e-9, time.monotonic() - start):.0f}/s"
            bar.update(task, advance=count, rate=f"{rate}, {state()}" if state else rate)

        yield advance


def _plain_lines(what: str, total: int | None, done: int, state: Callable[[], str] | None) -> Callable[[int], None]:
    last = time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            of, words = "" if total is None else f" of {total}", f", {state()}" if state else ""
            print(f"{what}: {done}{of}{words}", file=sys.stderr, flush=True)

    return advance
