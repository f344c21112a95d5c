"""A UNet of 35.7 M parameters (that of benchmarks/large_unet.py), random weights, as a bundle in FP32 and FP16; images.

Its schedule has 50 steps, the fewest at which the paper's plan takes as many as at 1,000: an export proves each.
Run: large_bundle.py FOLDER [WIDTH].
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from large_unet import WIDTH, make_unet

STEPS = 50  # of the schedule
IMAGES = 64  # of noise: what they show does not change the time
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


def main() -> None:
    """Write the models, and export them as a user would."""
    import diffusers
    import numpy as np
    from PIL import Image

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    make_unet(folder / "unet", int(sys.argv[2]) if len(sys.argv) > 2 else WIDTH)
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


if __name__ == "__main__":
    main()
