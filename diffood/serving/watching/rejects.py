"""Ends a run in which most files are refused: the wrong folder, a broken camera."""

from diffood.errors import DiffoodError, UsageError
from diffood.serving.rows.row import Row

FEWEST_FILES = 100  # a share of fewer files says little


class RejectLimit:
    """Counts the rows of this run. Those of earlier runs do not count, so that a resume can continue."""

    def __init__(self, rate: float) -> None:
        """Allow a share of `rate`. Raises UsageError if it is not between 0 and 1."""
        if not 0 <= rate <= 1:  # NaN neither
            raise UsageError(f"--max-reject-rate {rate} is not between 0 and 1.")
        self._rate, self._files, self._rejected = rate, 0, 0

    def row(self, row: Row) -> None:
        """Count a row. Raises DiffoodError if a larger share of at least FEWEST_FILES rows is refused."""
        self._files += 1
        self._rejected += row.status == "rejected"
        if self._files >= FEWEST_FILES and self._rejected > self._rate * self._files:
            raise DiffoodError(
                f"{self._rejected} of {self._files} files were refused, more than --max-reject-rate {self._rate:g}; "
                f"the last: {row.id!r}: {row.error or row.status}. Check the inputs; the rows so far are kept."
            )
