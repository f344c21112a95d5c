"""Writes a cache of everything that scorers are made of: what a classifier and one evaluation of a UNet say of images.

Keys are SET/NAME for the classifier and SET/tTIME-REPEAT/NAME for one noising; `cache.py` says what each name holds.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file
from torch import nn

from diffood.export.graphs.normalisation import fused_group_norms
from diffood.export.onnx.proof import GraphInputs, export_onnx
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import NoisePool, make_pool
from diffood.runtime.method.plan import DEFAULT, Plan
from diffood.runtime.method.schedule import StepTable
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.reconstruction import BLUR, gaussian
from diffood.zoo.classifier import SmallResNet
from research.datasets import channels_first
from research.left_out.cache import BLOCKS, CLASSIFIER_BLOCKS, NOISINGS, WITHOUT_CLASS, noising_key
from research.left_out.sets import LabelledImages, split_sets

UNET_TRAINED = 500  # of the training images, how many the UNet sees
BATCH = 100
_POOLED = 4  # side in pixels of the squares that an error map is the mean of

ROWS = 8
PERTURBED, PERTURBATION = 0.05, 0.5  # AdaSCALE's o and epsilon, as in OpenOOD

Arrays = dict[str, npt.NDArray[Any]]


class _Snapshots(nn.Module):
    """A model that also gives, of each block in turn, means and then standard deviations of its channels [B, S]."""

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.kept: dict[str, torch.Tensor] = {}
        for name in blocks:
            model.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, _module: nn.Module, _given: object, output: object) -> None:
        kept = output[0] if isinstance(output, tuple) else output
        assert isinstance(kept, torch.Tensor)
        self.kept[name] = kept

    def pooled(self) -> torch.Tensor:
        """Means and standard deviations of the last evaluation."""
        found = []
        for kept in self.kept.values():
            mean = kept.mean((2, 3))
            found += [mean, ((kept - mean[:, :, None, None]) ** 2).mean((2, 3)).sqrt()]
        return torch.cat(found, 1)


class _ClassifierSnapshots(_Snapshots):
    """x [B, C, H, W] in [0, 1] -> logits, features, blocks."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Classify."""
        return (*self.model(x), self.pooled())


class _UNetSnapshots(_Snapshots):
    """noisy [B, C, H, W], time [B], label [B] -> eps [B, C, H, W], blocks."""

    def forward(self, noisy: torch.Tensor, time: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Evaluate once."""
        eps = self.model(noisy, time, class_labels=label, return_dict=False)[0]
        return eps, self.pooled()


class SplitModels:
    """The classifier and, where it is there, the UNet of one split; run by ONNX Runtime: two thirds of torch's time."""

    def __init__(self, folder: Path, side: int, work: Path, threads: int) -> None:
        weights = load_file(folder / "classifier.safetensors")
        self.head = weights["head.weight"].numpy(), weights["head.bias"].numpy()
        self.classes = len(self.head[0])
        channels = weights["stem.0.weight"].shape[1]
        classifier = SmallResNet(classes=self.classes, channels=channels)
        classifier.load_state_dict(weights)
        self._classifier = classifier.eval()
        example = {"x": torch.zeros(2, channels, side, side)}
        snapshots: _Snapshots = _ClassifierSnapshots(classifier, CLASSIFIER_BLOCKS)
        outputs = ("logits", "features", "blocks")
        self._classify = _session(snapshots, example, outputs, work / "classify.onnx", threads)
        self.denoises = (folder / "scheduler").is_dir()
        if not self.denoises:
            return
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        self.alpha_bar = scheduler.alphas_cumprod.numpy().astype(np.float64)
        snapshots = _UNetSnapshots(UNet2DModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False), BLOCKS)
        label = torch.zeros(2, dtype=torch.int64)
        example = {"noisy": example["x"], "time": torch.full((2,), 9.0), "label": label}
        self._predict = _session(snapshots, example, ("eps", "blocks"), work / "predict.onnx", threads)

    def classify(self, x: Array) -> tuple[Array, Array, Array]:
        """Logits [B, K], features [B, D] and blocks [B, S] of x [B, C, H, W] in [-1, 1]."""
        logits, features, blocks = _run(self._classify, x=(x + 1) / 2)
        return logits, features, blocks

    def classify_perturbed(self, x: Array) -> Array:
        """Features [B, D] of images perturbed where it changes the predicted logit least.

        AdaSCALE (arXiv 2503.08023) adds PERTURBATION standard deviations times the gradient's sign to the share
        PERTURBED of the pixels with the smallest gradients.
        """
        pixels = torch.from_numpy((x + 1) / 2).requires_grad_()
        logits, _ = self._classifier(pixels)
        (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), pixels)
        smallest = gradient.abs().flatten(1).topk(int(PERTURBED * gradient[0].numel()), largest=False).indices
        mask = torch.zeros_like(gradient).flatten(1).scatter_(1, smallest, 1).view_as(gradient)
        with torch.no_grad():
            step = PERTURBATION * self._classifier.std * gradient.sign() * mask
            features = self._classifier(pixels + step)[1]
        return np.asarray(features.numpy())

    def predict(self, noisy: Array, time: float, label: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        """The noise predicted [B, C, H, W], and of each block's channels the means and then the deviations [B, S]."""
        eps, blocks = _run(self._predict, noisy=noisy, time=np.full(len(noisy), time, np.float32), label=label)
        return eps, blocks


@contextmanager
def open_models(folder: Path, side: int, threads: int) -> Iterator[SplitModels]:
    """The models of a folder with classifier.safetensors, unet and scheduler."""
    with tempfile.TemporaryDirectory() as work:
        yield SplitModels(folder, side, Path(work), threads)


def _session(module: nn.Module, example: GraphInputs, outputs: tuple[str, ...], path: Path, threads: int) -> Any:
    import onnxruntime  # here, after diffood, which turns its telemetry off

    with fused_group_norms(module):
        export_onnx(module.eval(), example, outputs, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: Any, **inputs: npt.NDArray[np.generic]) -> list[Array]:
    """Run in calls of ROWS rows, which stay in the caches."""
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(None, {name: value[at : at + ROWS] for name, value in inputs.items()})
        for at in range(0, count, ROWS)
    ]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def extract(models: Path, data: Path, without: Sequence[int], output: Path, limit: int | None, threads: int) -> None:
    """Write the cache of one split; with a limit, of so many images of each set."""
    sets = split_sets(data, without)
    with open_models(models, sets["test"].side, threads) as split:
        _extract(split, sets, output, limit)


def _extract(split: SplitModels, sets: dict[str, LabelledImages], output: Path, limit: int | None) -> None:
    found: Arrays = {"head_weight": split.head[0], "head_bias": split.head[1]}
    if split.denoises:
        found["alpha_bar"] = split.alpha_bar
    size = sets["test"].images[0].size
    pool = make_pool(DEFAULT.seed, 1 + max(repeat for _, repeat in NOISINGS), size, size)
    for name, stored in sets.items():
        images = LabelledImages(stored.images[:limit], stored.labels[:limit])
        denoised = min(UNET_TRAINED, len(images.images)) if name == "train" else len(images.images)
        batches = [
            _measure(split, pool, images.images[at : at + BATCH], denoise=split.denoises and at < denoised)
            for at in range(0, len(images.images), BATCH)
        ]
        found |= {f"{name}/images": images.images, f"{name}/labels": images.labels}
        for key in batches[0]:
            found[f"{name}/{key}"] = np.concatenate([batch[key] for batch in batches if key in batch])
        print(f"{output.name}: {name}, {len(images.images)} images", flush=True)
    write_arrays(output, found)


def write_arrays(output: Path, found: Arrays) -> None:
    """Write an .npz whole or not at all."""
    unfinished = output.with_suffix(".partial.npz")
    np.savez(unfinished, allow_pickle=False, **found)
    unfinished.replace(output)


def _measure(split: SplitModels, pool: NoisePool, images: npt.NDArray[np.uint8], *, denoise: bool) -> Arrays:
    """What the models say of one batch uint8 [B, H, W] or [B, H, W, C]."""
    pixels = channels_first(images)
    x = from_pixels(pixels)
    logits, features, inside = split.classify(x)
    found: Arrays = {"logits": logits, "features": features, "inside": inside.astype(np.float16)}
    found["perturbed"] = split.classify_perturbed(x)
    if not denoise:
        return found
    labels = logits.argmax(1)
    null = np.full_like(labels, split.classes)
    noise = pool.draw(pixels, pixels.shape[1:])
    for time, repeat in NOISINGS:
        table = _one_step(time, split.alpha_bar)
        signal, strength = map(np.float32, table.noise_scale)
        noisy = signal * x + strength * noise[repeat]
        eps, blocks = split.predict(noisy, float(table.times[0]), labels)
        key, (c_x, c_eps) = noising_key(time, repeat), table.coefficients[0, 2:]
        found |= {f"{key}/eps": eps.astype(np.float16), f"{key}/blocks": blocks.astype(np.float16)}
        predictions = {"one": eps}
        if time in WITHOUT_CLASS:
            eps_null, blocks_null = split.predict(noisy, float(table.times[0]), null)
            found |= {
                f"{key}/eps_null": eps_null.astype(np.float16),
                f"{key}/blocks_null": blocks_null.astype(np.float16),
            }
            predictions["guided"] = (1 + DEFAULT.guidance) * eps - DEFAULT.guidance * eps_null
        for kind, predicted in predictions.items():
            denoised = np.clip(c_x * noisy + c_eps * predicted, -1, 1)
            found |= {f"{key}/{kind}/{name}": value for name, value in _compare(split, x, denoised).items()}
    return found


def _one_step(time: int, alpha_bar: npt.NDArray[np.float64]) -> StepTable:
    plan = Plan(start_times=(time,), stride=time, repeats=1, guidance=0.0)
    return plan.tables(alpha_bar, "epsilon")[0]


def _compare(split: SplitModels, x: Array, denoised: Array) -> Arrays:
    """What the classifier says of denoised images, and how they differ from the images."""
    logits, features, inside = split.classify(denoised)
    difference = (denoised - x).astype(np.float64)
    side = difference.shape[-1]
    blur = gaussian(side, BLUR * side)
    blurred = blur @ difference @ blur.T
    squares = (difference**2).mean(1).reshape(len(x), side // _POOLED, _POOLED, -1, _POOLED)
    return {
        "logits": logits,
        "features": features.astype(np.float16),
        "inside": inside.astype(np.float16),
        "reconstruction": np.sqrt((blurred**2).mean((1, 2, 3))),
        "error_map": squares.mean((2, 4)).astype(np.float16),
    }
