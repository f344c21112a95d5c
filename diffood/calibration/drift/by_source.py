"""Monitors every source of served rows apart, so that one camera that drifts is not hidden by many that do not.

Each source, the first folder of a row's id, has a martingale of its own (`martingale`). The k-th source that appears
raises its alarm at level / (k (k + 1)): these sum to the level, so the probability that any source ever raises a false
alarm is at most the level, however many sources there will be.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffood.calibration.checked import require_share
from diffood.calibration.drift.monitor import DriftReport, DriftWatch, begin, conclude, observe, source_of
from diffood.runtime.bundle.calibration import Calibration
from diffood.serving.rows.readers import read_rows
from diffood.serving.rows.row import Row

MOST_SOURCES = 1000  # watched apart; each keeps its own scores in memory
OTHER_SOURCES = "other sources"


@dataclass(frozen=True)
class SourceDrift:
    """What was found in the rows of one source; positions count these rows alone."""

    source: str
    report: DriftReport


@dataclass(frozen=True)
class SourcesReport:
    """The result of a watch over sources.

    Attributes:
        level: Largest probability that any source ever raises a false alarm.
        sources: Those with an alarm first, then as they appeared.
        withdrawn: Why feedback has withdrawn the certificate; "" where it has not.
    """

    level: float
    sources: tuple[SourceDrift, ...]
    withdrawn: str = ""

    @property
    def alarmed(self) -> tuple[str, ...]:
        """Sources that raised an alarm."""
        return tuple(found.source for found in self.sources if found.report.alarm)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sources = [{"source": found.source, **found.report.as_json()} for found in self.sources]
        return {"level": self.level, "alarmed": self.alarmed, "sources": sources, "withdrawn": self.withdrawn}


def monitor_sources(calibration: Calibration, paths: Sequence[Path], level: float) -> SourcesReport:
    """Watch each source of the rows of these files, in the order given.

    Raises as `begin`, `observe` and `read_rows` do.
    """
    require_share("--level", level)
    watches: dict[str, DriftWatch] = {}
    for path in paths:
        for block in read_rows(path):
            rows = defaultdict[str, list[Row]](list)
            for row in block:
                source = source_of(row.id)
                known = source in watches or source in rows or len(watches.keys() | rows.keys()) < MOST_SOURCES
                rows[source if known else OTHER_SOURCES].append(row)
            for source, own in rows.items():
                place = len(watches) + 1
                watch = watches.get(source) or begin(calibration, level / (place * (place + 1)))
                watches[source] = observe(watch, own)
    found = [SourceDrift(source, conclude(watch)) for source, watch in watches.items()]
    return SourcesReport(level, tuple(sorted(found, key=lambda one: one.report.alarm is None)))
