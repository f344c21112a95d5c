"""Same work on a large UNet: python benchmarks/large_unet.py. 35.7 M parameters, 32x32, random weights, GEMM peak.

The shape is google/ddpm-cifar10-32's with eleven labels. Weights do not change the time of a product, nor do images.
Torch is imported where it is used: a contender's own process imports this file, and would be charged with torch.
"""

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pages import comparison, diffood, machine_line, machine_options, readable, record, table

from diffood import zoo
from diffood.bench.compare import Budget, Contender, compare
from diffood.bench.contenders import our_contenders, plain_contender
from diffood.export.images import read_sample
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.method.plan import REFERENCE
from diffood.zoo.images import unpack_set

# Sixteen evaluations an image: the official loop's batch, steps and doubling, eighteen times fewer.
PLAN = REFERENCE.changed({"start_times": (120,), "stride": 60})
SIDE = 2048  # of the matrices whose product measures the peak; larger ones are no faster
GEMM = "matrix product, numpy", "matrix product, torch"
IMAGES, SEED, WIDTH = 64, 0, 128
CLASSIFIER_SIZE = 28, 28


@dataclass(frozen=True)
class Product:
    """A contender for whom an image is one float32 product of two SIDE x SIDE matrices."""

    library: str
    meter: None = None

    def run(self, pixels: Pixels) -> int:
        """See Runner.run."""
        import torch

        left, right = torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)
        for _ in pixels:
            (left @ right) if self.library == "torch" else (left.numpy() @ right.numpy())
        return 0


def open_product(library: str, threads: int, batch: int) -> Product:
    """The product in a library; numpy's threads are set by its environment alone."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return Product(library)


def make_unet(folder: Path, width: int) -> float:
    """Write the UNet to a folder; returns the floating-point operations of one evaluation, as torch counts them."""
    import torch
    from diffusers import UNet2DModel
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(SEED)
    model = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(width, 2 * width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        attention_head_dim=None,
        num_class_embeds=11,
    ).eval()
    model.save_pretrained(folder, safe_serialization=True)
    rows = 2
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(rows, 3, 32, 32), torch.zeros(rows), class_labels=torch.zeros(rows, dtype=torch.int64))
    return counter.get_total_flops() / rows


def main() -> None:
    """Parse the command line, export, measure, write."""
    parser = machine_options(__doc__, batch=8, timed=True)
    parser.add_argument("--keep", type=Path, help="folder of the models, kept and used again")
    parser.add_argument("--width", type=int, default=WIDTH, help="channels of its first block, a multiple of 32")
    parser.add_argument("--precision", default="fp32,int8")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(given, given.keep or Path(scratch))


def measure(given: argparse.Namespace, place: Path) -> None:
    """Make the bundle where it is not there yet, and time every contender on it."""
    from diffood.bench.torch_loop import TorchVariant, open_torch_loop

    unet, bundle, images = place / "unet", place / "bundle", place / "images"
    flops = make_unet(unet, given.width)  # the same weights every time
    if not bundle.exists():
        unpack_set("fashion-validation", images, IMAGES)
        diffood(
            "export", "--unet", unet, "--classifier", f"{zoo.CLASSIFIER}:{zoo.FACTORY}", "--classifier-weights",
            zoo.CLASSIFIER_WEIGHTS, "--input-size", "x".join(map(str, CLASSIFIER_SIZE)), "--precision",
            given.precision, "--images", images, "--output", bundle,
        )  # fmt: skip
    opened = open_bundle(bundle)
    spec = f"{zoo.CLASSIFIER}:{zoo.FACTORY}"
    prepared = Preprocessing(size=CLASSIFIER_SIZE)
    models = ModelSources(unet, ClassifierSource(spec, zoo.CLASSIFIER_WEIGHTS, prepared))
    ours, _ = our_contenders(opened, {"same": PLAN}, batch=given.batch, threads=given.threads)
    contenders = [
        *(
            Contender(
                name=f"same plan, {'torch.compile' if compiled else 'torch eager'}, fp32",
                open=partial(open_torch_loop, bundle, models, PLAN, given.threads, TorchVariant(compiled=compiled)),
                batch=given.batch,
                chunk=max(1, given.batch // PLAN.repeats),
                single_batches=(PLAN.repeats,),
            )
            for compiled in ((False,) if given.no_compile else (False, True))
        ),
        plain_contender(opened, PLAN, batch=given.batch, threads=given.threads),
        *ours,
        *(
            Contender(
                name, partial(open_product, name.split()[-1], given.threads), batch=1, chunk=4, single_batches=(1,)
            )
            for name in GEMM
        ),
    ]
    pixels = read_sample([str(images)], opened.manifest.image, IMAGES, print)
    found = compare(contenders, pixels, Budget(given.seconds, given.rounds)).as_json()
    products = [row for row in found["rows"] if row["name"] in GEMM]
    peak = max(2 * SIDE**3 * row["images_per_second"]["median"] for row in products)
    runs = [row for row in found["rows"] if row["name"] not in GEMM]
    lines = [
        machine_line(found),
        f"{opened.manifest.unet.parameters / 1e6:.1f} M parameters, 3x32x32, {flops / 1e9:.2f} GFLOP an evaluation "
        f"(torch's count: a multiplication and an addition are two); batch {given.batch}, "
        f"{given.threads or 'all'} threads, {given.seconds:g} s each in {given.rounds} rounds.",
        "",
        *comparison(runs),
        "",
        f"FP32 GEMM peak in the same rounds: {peak / 1e9:.0f} GFLOP/s "
        f"({', '.join(_speed(row) for row in products)}; {SIDE}x{SIDE}).",
        "",
        *table(("", "GFLOP/s in the UNet", "of the FP32 GEMM peak"), [_distance(row, flops, peak) for row in runs]),
        *[f"Left out: {name}: {reason}." for name, reason in found["skipped"]],
    ]
    record("large_unet", found | {"flops_an_evaluation": flops, "gemm_flops_a_second": peak}, lines)


def _speed(row: dict[str, Any]) -> str:
    return f"{row['name'].split(', ')[1]} {2 * SIDE**3 * row['images_per_second']['median'] / 1e9:.0f}"


def _distance(row: dict[str, Any], flops: float, peak: float) -> list[str]:
    """Operations a second, counting the UNet's alone: the classifier's count as waste."""
    done = row["images_per_second"]["median"] * row["evaluations"] * flops
    return [row["name"], readable(done / 1e9), f"{100 * done / peak:.0f} %"]


if __name__ == "__main__":
    main()
