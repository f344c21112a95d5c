"""Counts, rates, differences and probabilities as text, for messages, the terminal and reports."""

from math import isfinite

SMALLEST_SHOWN = 0.001  # of a p-value; digits below it mean nothing


def counted(count: int, noun: str) -> str:
    """A count with its noun: 1 image, 2 images."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def percent(share: float, digits: int = 1) -> str:
    """A measured share in percent; one that is neither 0 nor 1 is never rounded to 0% or 100%."""
    nearest = 0.5 * 10.0**-digits / 100
    if 0 < share < nearest:
        return f"below {10.0**-digits:g}%"
    if 1 - nearest < share < 1:
        return f"above {100 - 10.0**-digits:.{digits}f}%"
    return f"{share:.{digits}%}"


def exact_percent(share: float) -> str:
    """A requested share in percent, with the digits it was given with."""
    return f"{100 * share:.6g}%"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.2f}"


def ratio(value: float) -> str:
    """A ratio of two shares; infinite where the divisor may be 0."""
    return f"{value:.2f}" if isfinite(value) else "unbounded"


def probability(p_value: float) -> str:
    """A p-value, to three decimal places."""
    return f"below {SMALLEST_SHOWN:g}" if p_value < SMALLEST_SHOWN else f"{p_value:.3f}"
