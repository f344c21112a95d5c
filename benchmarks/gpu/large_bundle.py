"""A UNet of 35.7 M parameters (that of benchmarks/large_unet.py), random weights, as a bundle in FP32 and FP16; images.

Its schedule has 50 steps, the fewest at which the paper's plan takes as many as at 1,000: an export proves each, which
takes ten minutes. So it is made where `pack.sh` runs and travels without its weights, which numpy makes again.

Run: large_bundle.py make FOLDER [WIDTH], large_bundle.py pack FOLDER PACKED, large_bundle.py unpack PACKED FOLDER.
"""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STEPS = 50  # of the schedule
IMAGES = 64  # of noise: what they show does not change the time
LARGE = 1024  # values of a tensor from which on it travels as its name
UNET, LEFT_OUT = (
    "unet/diffusion_pytorch_model.safetensors",
    "detector*",
)  # for other runtimes: no part here asks for them
NAMES = "names.json"  # of what was left behind
FACTORY = '''"""A small classifier with random weights."""
import torch


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.Linear(16, 10)

    def forward(self, x):
        features = self.conv(x).relu().mean((2, 3))
        return self.head(features), features


def small():
    torch.manual_seed(0)
    return Small()
'''


def weights(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The weights of this name, as torch would begin with."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    bound = np.float32(1 / math.sqrt(math.prod(shape[1:])))
    return (2 * np.random.default_rng(seed).random(shape, np.float32) - 1) * bound


def is_large(name: str, shape: tuple[int, ...]) -> bool:
    """Whether it is a matrix or a kernel worth leaving behind."""
    return name.endswith("weight") and len(shape) > 1 and math.prod(shape) >= LARGE


def make(folder: Path, *width: str) -> None:
    """Write the models, and export them as a user would."""
    import diffusers
    from large_unet import WIDTH, make_unet
    from PIL import Image

    folder.mkdir(parents=True)
    make_unet(folder / "unet", int(width[0]) if width else WIDTH)
    _fill(folder / UNET)
    diffusers.DDPMScheduler(num_train_timesteps=STEPS).save_pretrained(folder / "scheduler")
    (folder / "small.py").write_text(FACTORY)
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for index in range(IMAGES):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / "images" / f"{index:03d}.png")
    models = [
        "--unet",
        folder / "unet",
        "--scheduler",
        folder / "scheduler",
        "--classifier",
        f"{folder}/small.py:small",
    ]
    command = ["export", *models, "--precision", "fp32,fp16", "--output", folder / "bundle"]
    subprocess.run([sys.executable, "-m", "diffood", *map(str, command)], check=True)


def _fill(file: Path) -> None:
    tensors = load_file(file)
    save_file({name: weights(name, t.shape) if is_large(name, t.shape) else t for name, t in tensors.items()}, file)


def pack(folder: Path, packed: Path) -> None:
    """Copy it without the weights that can be made again, and check that they can."""
    shutil.copytree(folder, packed, ignore=shutil.ignore_patterns(LEFT_OUT))
    tensors = load_file(folder / UNET)
    shapes = {name: tensor.shape for name, tensor in tensors.items() if is_large(name, tensor.shape)}
    save_file({name: tensor for name, tensor in tensors.items() if name not in shapes}, packed / UNET)
    made = {
        array.tobytes(): (name, turned)
        for name, shape in shapes.items()
        for kind in (np.float32, np.float16)
        for turned, array in _both(weights(name, shape).astype(kind))
    }
    taken: dict[str, dict[str, tuple[str, bool]]] = {}  # file -> tensor -> weight, whether transposed
    for file in sorted((packed / "bundle").glob("step*.onnx")):
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            if source := made.get(tensor.raw_data):
                taken.setdefault(file.name, {})[tensor.name] = source
                tensor.ClearField("raw_data")
        file.write_bytes(model.SerializeToString())
    (packed / NAMES).write_text(json.dumps({"shapes": shapes, "taken": taken}))
    again = packed.with_name(packed.name + ".again")
    unpack(packed, again)
    for file in sorted(path for path in again.rglob("*") if path.is_file()):
        if file.read_bytes() != (folder / file.relative_to(again)).read_bytes():
            raise SystemExit(f"{file} is not made again as it was")
    shutil.rmtree(again)


def unpack(packed: Path, folder: Path) -> None:
    """Copy it with its weights."""
    shutil.copytree(packed, folder)
    names = json.loads((folder / NAMES).read_text())
    (folder / NAMES).unlink()
    made = {name: weights(name, tuple(shape)) for name, shape in names["shapes"].items()}
    save_file(load_file(folder / UNET) | made, folder / UNET)
    for file, taken in names["taken"].items():
        model = onnx.load(folder / "bundle" / file)
        for tensor in model.graph.initializer:
            if tensor.name in taken:
                name, turned = taken[tensor.name]
                kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
                tensor.raw_data = dict(_both(made[name].astype(kind)))[turned].tobytes()
        (folder / "bundle" / file).write_bytes(model.SerializeToString())


def _both(array: npt.NDArray[Any]) -> list[tuple[bool, npt.NDArray[Any]]]:
    """An array, and a matrix transposed too: whether it is, and it."""
    return [(False, array)] + ([(True, array.T)] if array.ndim == 2 else [])


if __name__ == "__main__":
    verb, *paths = sys.argv[1:]
    if verb == "make":
        make(Path(paths[0]), *paths[1:])
    else:
        {"pack": pack, "unpack": unpack}[verb](*map(Path, paths))
