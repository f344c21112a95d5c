"""Files of arrays: .npz of a bundle, safetensors, and torch's checkpoints with weights_only."""

from oracle import Scratch, attempt

from diffood.export.sources.checkpoint import open_checkpoint
from diffood.runtime.bundle.arrays import load_arrays, load_noise_levels
from diffood.runtime.bundle.fusion import unpack_bank
from diffood.runtime.method.witnesses.registry import WITNESSES

SCRATCH = Scratch()


def use(data: bytes) -> None:
    """The first letter says which kind it is."""
    kind, data = data[:1], data[1:]
    if kind == b"n":
        attempt(lambda: load_arrays(data, "arrays.npz"))
        attempt(lambda: load_noise_levels(data, SCRATCH.path / "levels.npz"))
        attempt(lambda: unpack_bank(data, "bank.npz", tuple(WITNESSES)))
    elif kind in (b"s", b"t"):
        path = SCRATCH.file("weights.safetensors" if kind == b"s" else "weights.pt", data)
        attempt(lambda: open_checkpoint(path))
