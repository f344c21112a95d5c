"""What `diffood verify` prints, in lines. Prints nothing itself."""

from collections.abc import Iterable

from diffood.calibration.parity.checks import Check

MARKS = {True: "ok", False: "FAILED", None: "skipped"}


def describe_checks(checks: Iterable[Check]) -> list[str]:
    """A line per check: what was checked of what, how it ended, and why."""
    return [f"{check.what:<10}{check.subject:<28}{MARKS[check.passed]:<9}{check.detail}" for check in checks]
