"""Progress: a bar on a terminal, a plain line now and then elsewhere; always on standard error."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0


@contextlib.contextmanager
def show_progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more are done. total: of how many, None where that is not known."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(what, total)
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task, start = bar.add_task(what, total=total, rate=""), time.monotonic()

        def advance(count: int) -> None:
            done = bar.tasks[0].completed + count
            bar.update(task, advance=count, rate=f"{done / max(1e-9, time.monotonic() - start):.0f}/s")

        yield advance


def _plain_lines(what: str, total: int | None) -> Callable[[int], None]:
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{what}: {done}{'' if total is None else f' of {total}'}", file=sys.stderr, flush=True)

    return advance
