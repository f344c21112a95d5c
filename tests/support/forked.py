"""The command line in a process that was forked, without its streams."""

import os
import sys

from diffood import cli


def run_forked(*words: str) -> None:
    """Run one command and exit as it does."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.argv = ["diffood", *words]
    cli.main()
