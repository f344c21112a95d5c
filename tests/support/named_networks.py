"""What tests of timm and torchvision share: a process that fails when it opens a connection."""

import subprocess
import sys

UNCONNECTED = """
import sys
asked = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        asked.append((event, args[-1]))
        raise OSError("the network was asked")
sys.addaudithook(watch)
import time
time.sleep = lambda seconds: None  # a library may try again and again
from pathlib import Path
from diffood.errors import DiffoodError
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
"""


def run_unconnected(program: str) -> str:
    """Standard output of a program in which every connection fails and is noted in `asked`."""
    done = subprocess.run(
        [sys.executable, "-c", UNCONNECTED + program], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
