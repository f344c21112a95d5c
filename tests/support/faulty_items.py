"""Items whose loading crashes, hangs or eats the memory of the process that loads them, for tests of that process."""

import io
import os
import signal
import time
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import Item


@dataclass(frozen=True)
class Faulty(Item):
    """fault: "" for a good image of one grey; "signal 11", "exit", "sleep", "memory", "garbage", "error"."""

    fault: str = ""
    grey: int = 100

    @property
    def place(self) -> str:
        return self.id

    def read(self, limits: ImageLimits) -> bytes:
        if self.fault.startswith("signal"):
            os.kill(os.getpid(), int(self.fault.split()[1]))
        if self.fault == "exit":
            os._exit(7)
        if self.fault == "sleep":
            time.sleep(3600)
        if self.fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.fault == "memory":
            bytearray(2**31)  # more than the limit, less than most machines have
        if self.fault == "answer":
            os.write(0, b"\0\0\0\x04nojs")  # a frame of the pipe that is no answer
        if self.fault == "endless answer":
            os.write(0, b"\x7f\xff\xff\xff")  # a frame of two gigabytes begins
        if self.fault == "error":
            raise KeyError("a fault of ours")
        stream = io.BytesIO()
        Image.fromarray(np.full((4, 4), self.grey, np.uint8)).save(stream, "PNG")
        return stream.getvalue()


@dataclass(frozen=True)
class FaultyOnce(Item):
    """Has a fault of `Faulty` in the first process that it is sent to, and none in the next; counts them."""

    fault: str
    sent: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return self.id

    def read(self, limits: ImageLimits) -> bytes:
        return Faulty(self.id).read(limits)

    def __reduce__(self) -> tuple[type[Faulty], tuple[str, str]]:
        self.sent.append(self.id)
        return Faulty, (self.id, self.fault if len(self.sent) == 1 else "")
