"""What `diffood verify` prints, in lines. Prints nothing itself."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from diffood.calibration.parity.checks import Check
from diffood.cli.text.conversions import describe_conversions_by_set

if TYPE_CHECKING:
    from diffood.calibration.verify import Verification

MARKS = {True: "ok", False: "FAILED", None: "skipped"}


def describe_verification(found: "Verification") -> list[str]:
    """Lines about every check, and about images that were changed while they were read."""
    changed = ((name, counts, found.images[name]) for name, counts in found.conversions.items())
    return [*describe_checks(found.checks), *describe_conversions_by_set(changed)]


def describe_checks(checks: Iterable[Check]) -> list[str]:
    """A line per check: what was checked of what, how it ended, and why."""
    return [f"{check.what:<10}{check.subject:<28}{MARKS[check.passed]:<9}{check.detail}" for check in checks]
