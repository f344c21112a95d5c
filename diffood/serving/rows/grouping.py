"""Tells whether rows come folder by folder, which a monitor takes for drift. Keeps counts, no rows."""

from collections import Counter

MOST_FOLDERS = 10_000  # counted apart; a run over more is not one over folders of classes
FEWEST_ROWS = 20  # in which chance hardly groups rows so well
GROUPED = 4
"""Rows are grouped if they change folder this many times less often than in random order."""


class FolderOrder:
    """Counts how often rows change folder, one row after the other."""

    def __init__(self) -> None:
        self._rows, self._changes = Counter[str](), 0
        self._last: str | None = None

    def add(self, identity: str) -> None:
        """Count a row by its id."""
        folder = identity.rpartition("/")[0]
        if len(self._rows) < MOST_FOLDERS or folder in self._rows:
            self._rows[folder] += 1
        self._changes += folder != self._last
        self._last = folder

    @property
    def folders(self) -> tuple[str, ...]:
        """Last parts of the folders' names, in the order in which they came."""
        return tuple(folder.rpartition("/")[2] for folder in self._rows)

    @property
    def grouped(self) -> bool:
        """Whether rows of one folder come together, for all folders: sorted, and not by chance."""
        count = self._rows.total()
        if len(self._rows) < 2 or count < FEWEST_ROWS:
            return False
        # The expected number of runs in a random order of n elements of kinds with n_i each: 1 + (n^2 - sum n_i^2) / n.
        expected = 1 + (count**2 - sum(rows**2 for rows in self._rows.values())) / count
        return self._changes * GROUPED < expected
