"""A UNet of ImageNet's size to FP16 and to an engine: python benchmarks/imagenet_unet.py. 554 M parameters, 256x256.

The shape is guided-diffusion's class-conditional one for ImageNet at 256x256, as a diffusers UNet2DModel, with random
weights, which change neither sizes nor times. What is measured: files, seconds, and the most memory of each process,
over the bytes of the weights in FP32, which is what torch holds when it has loaded them. Takes most of an hour on one
core, some 8 GB of memory and 12 GB of disk; no GPU.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pages import machine_line, record, table

from diffood.runtime.bundle.bundle import open_bundle

WIDTH, SIZE, CLASSES = 256, 256, 1000
BLOCKS = ("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3  # attention at 32, 16 and 8
MULTIPLIERS = (1, 1, 2, 2, 4, 4)
HEAD = 64  # channels of an attention head
SEED = 0

# Of 1,000 classes, at the size ImageNet's classifiers take; what it is does not matter here.
CLASSIFIER = '''"""A small classifier of random weights."""

import torch
from torch import nn


def build():
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 32, 7, 4), nn.ReLU(), nn.Conv2d(32, 64, 5, 4), nn.ReLU()]
    return nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
'''


@dataclass(frozen=True)
class Stage:
    """One command: its name, what it printed, seconds by the clock and of a core, most memory of a process of it."""

    name: str
    printed: str
    seconds: float
    core_seconds: float
    peak: int


def make_unet(folder: Path, width: int, size: int) -> float:
    """Write the UNet and its scheduler; returns the floating-point operations of one evaluation, as torch counts."""
    import torch
    from diffusers import DDPMScheduler, UNet2DModel
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(SEED)
    model = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=6,  # with the learned sigma
        layers_per_block=2,
        block_out_channels=tuple(width * multiplier for multiplier in MULTIPLIERS),
        down_block_types=BLOCKS,
        up_block_types=tuple(block.replace("Downsample", "Upsample").replace("Down", "Up") for block in BLOCKS[::-1]),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=min(HEAD, width),
        num_class_embeds=CLASSES,
    ).eval()
    model.save_pretrained(folder / "unet", safe_serialization=True)
    DDPMScheduler(num_train_timesteps=1000).save_pretrained(folder / "scheduler")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size), torch.zeros(1), class_labels=torch.zeros(1, dtype=torch.int64))
    return float(counter.get_total_flops())


def run_stage(name: str, *words: object) -> Stage:
    """Run one verb in a process of its own, which is charged with its own memory alone. SystemExit where it fails."""
    command = [str(word) for word in words]
    print(f"$ diffood {shlex.join(command)}", file=sys.stderr, flush=True)
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "diffood", *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", file=sys.stderr, flush=True)
        lines.append(line)
    _, status, usage = os.wait4(process.pid, 0)  # its own usage and its children's, the builder's among them
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"`diffood {command[0]}` failed with exit code {process.returncode}.")
    unit = 1 if sys.platform == "darwin" else 1024
    core = usage.ru_utime + usage.ru_stime
    return Stage(name, "".join(lines), time.monotonic() - began, core, usage.ru_maxrss * unit)


def main() -> None:
    """Parse the command line, make, export, build, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder of the model and the bundle, kept and used again")
    parser.add_argument("--width", type=int, default=WIDTH, help="channels of its first block, a multiple of 32")
    parser.add_argument("--size", type=int, default=SIZE, help="of the images, a multiple of 32")
    parser.add_argument("--precision", default="fp16", help="fp32 is exported too")
    parser.add_argument("--gpu", default="sm89")
    parser.add_argument("--engine-batch", default="1,4,8")
    parser.add_argument("--no-engine", action="store_true", help="stop before TensorRT-RTX")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(given, given.keep or Path(scratch))


def measure(given: argparse.Namespace, place: Path) -> None:
    """Make the models where they are not there yet, run each step, record what it took."""
    place.mkdir(parents=True, exist_ok=True)
    flops = make_in_another_process(place, given.width, given.size)
    (place / "classifier.py").write_text(CLASSIFIER.replace("CLASSES", str(CLASSES)))
    bundle = place / "bundle"
    stages = [
        run_stage(
            "export", "export", "--unet", place / "unet", "--scheduler", place / "scheduler",
            "--classifier", f"{place / 'classifier.py'}:build", "--input-size", "224x224",
            "--precision", given.precision, "--output", bundle, "--overwrite",
        ),
        run_stage("open and hash", "inspect", bundle),
    ]  # fmt: skip
    if not given.no_engine:
        stages.append(
            run_stage(
                f"engine for {given.gpu}", "export", "--bundle", bundle, "--engine", "tensorrt-rtx",
                "--gpu", given.gpu, "--precision", given.precision, "--engine-batch", given.engine_batch,
            )
        )  # fmt: skip
    report(given, bundle, flops, stages)


def make_in_another_process(place: Path, width: int, size: int) -> float:
    """As make_unet; its memory is given back."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
        f"from imagenet_unet import make_unet; print(make_unet(Path({str(place)!r}), {width}, {size}))"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def report(given: argparse.Namespace, bundle: Path, flops: float, stages: list[Stage]) -> None:
    """Put the figures into README.md and results/."""
    opened = open_bundle(bundle)
    parameters = opened.manifest.unet.parameters
    weights = 4 * parameters
    files = {str(path.relative_to(bundle)): path.stat().st_size for path in sorted(bundle.rglob("*")) if path.is_file()}
    proofs = [line for stage in stages for line in stage.printed.splitlines() if " inputs" in line]
    content = {
        "width": given.width, "size": given.size, "parameters": parameters, "flops_an_evaluation": flops,
        "weights_fp32": weights, "files": files,
        "stages": [asdict(stage) | {"printed": stage.printed.replace(f"{bundle.parent}/", "")} for stage in stages],
    }  # fmt: skip
    lines = [
        machine_line({}),
        f"{parameters / 1e6:.0f} M parameters, 3x{given.size}x{given.size}, {CLASSES:,} classes, "
        f"{flops / 1e12:.2g} TFLOP an evaluation (torch's count); weights in FP32 {weights / 1e9:.2f} GB. "
        f"Precision {given.precision}, engine for {given.gpu}, batch {given.engine_batch}.",
        "",
        *table(
            ("", "seconds", "seconds of a core", "most memory, GB", "over the FP32 weights"),
            [
                [
                    stage.name,
                    f"{stage.seconds:.0f}",
                    f"{stage.core_seconds:.0f}",
                    f"{stage.peak / 1e9:.2f}",
                    f"{stage.peak / weights:.2f}",
                ]
                for stage in stages
            ],
        ),
        "",
        *table(("file", "MB"), [[name, f"{size / 1e6:,.1f}"] for name, size in files.items() if size > 10**5]),
        "",
        "```",
        *proofs,
        "```",
    ]
    record("imagenet_unet", content, lines)


if __name__ == "__main__":
    main()
