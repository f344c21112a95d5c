"""Opens files of images; a process or system that is short of descriptors or memory for a moment costs no image."""

import errno
import os
import time
from pathlib import Path

PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
WAITS = (0.1, 0.3, 1.0, 3.0)  # seconds before each new try


def open_patiently(path: Path, flags: int) -> int:
    """A descriptor as of os.open, which is tried again after growing waits. Raises OSError."""
    for seconds in WAITS:
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno not in PASSING:
                raise
            time.sleep(seconds)
    return os.open(path, flags)
