"""What `diffood verify` prints, in lines. Prints nothing itself."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from diffood.calibration.parity.checks import Check, Outcome
from diffood.cli.text.conversions import describe_conversions_by_set

if TYPE_CHECKING:
    from diffood.calibration.parity.served import ServedEngines
    from diffood.calibration.verify import Verification

MARKS: dict[Outcome, str] = {"ok": "ok", "failed": "FAILED", "skipped": "skipped", "noted": "noted"}


def describe_verification(found: "Verification") -> list[str]:
    """Lines about every check, about images that were changed while they were read, and about what serves now."""
    changed = ((name, counts, found.images[name]) for name, counts in found.conversions.items())
    return [
        *describe_checks(found.checks),
        *describe_conversions_by_set(changed),
        *(describe_served(found.serves) if found.serves else []),
    ]


def describe_checks(checks: Iterable[Check]) -> list[str]:
    """A line per check: what was checked of what, how it ended, and why."""
    return [f"{check.what:<10}{check.subject:<28}{MARKS[check.outcome]:<9}{check.detail}" for check in checks]


def describe_served(found: "ServedEngines", width: int = 10) -> list[str]:
    """A line with what serves, and one for each engine that does not, with the reason; `width` of their first word."""
    chosen = found.by_default or "nothing"
    if found.automatic and found.automatic != found.by_default:
        chosen += f"; with --precision auto {found.automatic}, {found.why}"
    refused = (f"{'not':<{width}}{name} because {reason}" for name, reason in found.refused.items())
    return [f"{'serves':<{width}}{chosen}", *refused]
