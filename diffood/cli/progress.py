"""Progress on standard error: a bar on a terminal, a plain line every half minute elsewhere."""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffood.cli.printing import print_messages
from diffood.runtime.printable import escape_for_terminal

SECONDS_BETWEEN_LINES = 30.0


@contextlib.contextmanager
def show_progress(
    what: str, total: int | Callable[[], int | None], done: int = 0, state: Callable[[], str] | None = None
) -> Iterator[Callable[[int], None]]:
    """Show progress while the context is open; yields a function that takes the number of newly finished items.

    Args:
        what: Name of the task.
        total: Number of items, or a function that returns it, None as long as it is unknown.
        done: Items that were finished earlier.
        state: Returns a few words to show after the count.

    """
    if isinstance(total, int):
        total = functools.partial(int, total)
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(what, total, done, state)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    # Lines printed meanwhile appear above the bar; where they go to a file, rich must not send them to the terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task, start = bar.add_task(escape_for_terminal(what), total=total(), completed=done, rate=""), time.monotonic()

        def advance(count: int) -> None:
            fresh = bar.tasks[0].completed + count - done
            rate = describe_speed(fresh / max(1e-9, time.monotonic() - start))
            shown = escape_for_terminal(f"{rate}, {state()}" if state else rate)
            bar.update(task, total=total(), advance=count, rate=shown)

        yield advance


def _plain_lines(
    what: str, total: Callable[[], int | None], done: int, state: Callable[[], str] | None
) -> Callable[[int], None]:
    start = last = time.monotonic()
    fresh = 0

    def advance(count: int) -> None:
        nonlocal fresh, last
        fresh += count
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            line = describe(done + fresh, total(), fresh / (now - start), state() if state else "")
            print_messages(f"{what}: {line}")

    return advance


def describe(done: int, total: int | None, rate: float, state: str = "") -> str:
    """Progress in words: the count, the total if it is known, the speed, the state and the time left."""
    words = [str(done) if total is None else f"{done} of {total}", describe_speed(rate), *filter(None, [state])]
    if total is not None and rate > 0:
        words.append(f"{timedelta(seconds=round(max(0, total - done) / rate))} left")
    return ", ".join(words)


def describe_speed(rate: float) -> str:
    """Items per second, or per minute below one per second."""
    return f"{rate:.1f}/s" if rate >= 1 or not rate else f"{60 * rate:.1f}/min"
