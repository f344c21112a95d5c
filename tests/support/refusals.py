"""Tables of values that must be refused, each with what is said of it."""

import re
from collections.abc import Callable, Iterable
from typing import Any


def assert_refused(error: type[Exception], cases: Iterable[tuple[Any, str]], act: Callable[[Any], object]) -> None:
    """Assert that `act` raises `error` for every value, with a message of one line in which the pattern is found.

    The assertion names every value that does not.
    """
    wrong = []
    for value, pattern in cases:
        try:
            act(value)
        except error as raised:
            said = str(raised)
            if "\n" in said or not re.search(pattern, said):
                wrong.append(f"{value!r:.200} says {said!r:.500}, not {pattern!r}")
        else:
            wrong.append(f"{value!r:.200} is accepted, not {pattern!r}")
    assert not wrong, "\n".join(wrong)
