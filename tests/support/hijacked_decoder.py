"""An image whose decoding does what an attacker would who has taken the decoding process over."""

import ctypes
import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import Item

PTRACE_ATTACH = 16
DONE = "done"


def deeds(secret: str) -> dict[str, Callable[[], object]]:
    """What is tried, by name; `secret` is a file that anyone may read."""
    parent, libc = os.getppid(), ctypes.CDLL(None)
    return {
        "internet socket": lambda: socket.socket(socket.AF_INET),
        "packet socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        "local socket": lambda: socket.socket(socket.AF_UNIX),
        "pair of sockets": socket.socketpair,
        "read a file": lambda: Path(secret).read_bytes(),
        "write a file": lambda: Path(secret).write_bytes(b"changed"),
        "make a file": lambda: Path(secret).with_name("new").touch(),
        "remove a file": lambda: Path(secret).unlink(),
        "rename a file": lambda: Path(secret).rename(f"{secret}.moved"),
        "link to a file": lambda: Path(f"{secret}.link").symlink_to("/"),
        "list a folder": lambda: list(Path("/").iterdir()),
        "look at a file": lambda: Path(secret).stat(),
        "the parent's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "fork": lambda: os.fork() or os._exit(0),
        "run a program": lambda: os.execv("/bin/sh", ["sh", "-c", "true"]),
        "signal to the parent": lambda: os.kill(parent, 0),
        "trace the parent": lambda: _succeed(libc.ptrace(PTRACE_ATTACH, parent, None, None)),
        "limits of the parent": lambda: _succeed(libc.prlimit(parent, 0, None, None)),
        "mount": lambda: _succeed(libc.unshare(0x10000000)),
    }


def tried(secret: str) -> dict[str, str]:
    """Each deed with how it ended: "done", or the error's class."""
    ends = {}
    for name, do in deeds(secret).items():
        try:
            do()
            ends[name] = DONE
        except BaseException as error:
            ends[name] = type(error).__name__
    thread = threading.Thread(target=ends.update, args=({"a thread": DONE},))
    thread.start()
    thread.join()
    ends["environment"] = ",".join(sorted(os.environ))
    return ends


@dataclass(frozen=True)
class Hijacked(Item):
    """Its refusal says how each deed ended, as JSON."""

    secret: str

    @property
    def place(self) -> str:
        return self.id

    def read(self, limits: ImageLimits) -> bytes:
        raise RejectedImage(json.dumps(tried(self.secret)))


def _succeed(code: int) -> None:
    if code < 0:
        raise PermissionError
