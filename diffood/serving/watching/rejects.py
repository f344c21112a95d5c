"""Ends a run of which most files are refused: a wrong folder, a broken camera."""

from diffood.errors import DiffoodError, UsageError
from diffood.serving.rows.row import Row

FEWEST_FILES = 100  # before which a share says little


class RejectLimit:
    """To be told every row of this run; raises DiffoodError once more than a share of them, `rate`, is refused."""

    def __init__(self, rate: float) -> None:
        if not 0 <= rate <= 1:  # NaN neither
            raise UsageError(f"--max-reject-rate {rate} is not a share between 0 and 1.")
        self.rate, self._files, self._rejected = rate, 0, 0

    def row(self, row: Row) -> None:
        """Count a row. Those that an earlier run wrote do not count, so that a resume can go on."""
        self._files += 1
        self._rejected += row.status == "rejected"
        if self._files >= FEWEST_FILES and self._rejected > self.rate * self._files:
            raise DiffoodError(
                f"{self._rejected} of {self._files} files were refused, more than --max-reject-rate {self.rate:g}; the "
                f"last: {row.id!r}: {row.error or row.status}. Check the inputs; rows so far are kept."
            )
