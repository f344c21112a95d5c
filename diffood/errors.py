"""The errors diffood raises: one tree, so that a caller can catch one class. No logic."""


class DiffoodError(Exception):
    """Any failure diffood explains: the message says what was wrong, with the value, and what to do."""


class UsageError(DiffoodError):
    """A value given by the user cannot be used; the command line exits with 2."""


class BundleError(DiffoodError):
    """A bundle, or a file in it, is missing, damaged, foreign or from a newer format."""


class CalibrationError(DiffoodError):
    """A calibration cannot be made, or does not hold for what is running."""


class ExportError(DiffoodError):
    """A model cannot be exported, or an exported graph failed one of its proofs."""


class TrainingError(DiffoodError):
    """A training cannot go on: its loss is no number, memory is short, or its checkpoint is damaged."""


class RefusedEngineError(CalibrationError):
    """An engine must not serve with the bundle's calibration; `reason` says why in a few words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class MissingExtraError(DiffoodError):
    """A package of an optional extra is not installed; the message names the extra."""


class DeviceError(DiffoodError):
    """A GPU, its driver or a library that drives it is missing or failed."""


class EngineMemoryError(DeviceError):
    """The engine found no memory for a call of so many rows; fewer rows may do."""


class RejectedImage(DiffoodError):  # noqa: N818 - a verdict on an input, not a failure of diffood
    """One image is refused; the run goes on and its row carries this message."""


EXIT_FAILED, EXIT_WRONG_USAGE, EXIT_SET_ASIDE, EXIT_ALARM, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
"""What the command line exits with; 3 is "done, but items were set aside", 4 "done, and the served images drift", 130
the shell's for Ctrl-C."""
SIGNAL_EXIT = 128
"""Added to a signal's number, as shells do: what a run exits with that ended in good order when it was told to."""
