"""Writes the record of feedback beside a bundle, one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.feedback import FeedbackRecord, feedback_path
from diffood.runtime.bundle.files import plain_folder, write_record


def save_feedback(bundle: Bundle, calibration: Calibration, record: FeedbackRecord) -> Path:
    """Write the record, in one move, inside `changing_feedback`; returns its path. Raises UsageError as that does."""
    path = feedback_path(bundle, calibration)
    try:
        return write_record(path.parent, path.name, record)
    except OSError as error:
        raise _refusal(path, error) from None


@contextmanager
def changing_feedback(bundle: Bundle, calibration: Calibration) -> Iterator[None]:
    """Keep others from changing the record from before it is read until it is written, so that no answer is lost.

    Raises UsageError where nothing can be written.
    """
    path = feedback_path(bundle, calibration)
    try:
        folder = plain_folder(path.parent.parent, path.parent.name)
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _refusal(path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # released when it is closed, by a kill too
        yield
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path} cannot be written ({error.strerror}): feedback lies beside the bundle. Name the bundle by a link in a "
        "folder that you may write to."
    )
