"""A classifier of transformers: a local folder of config.json, model.safetensors and preprocessor_config.json."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.classifiers import timm
from diffood.export.sources.classifiers.loaded_classifier import LoadedClassifier
from diffood.export.sources.classifiers.preprocessing import Filter, Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.json_config import read_config
from diffood.export.sources.libraries import import_library
from diffood.export.sources.weights import hash_files
from diffood.export.sources.weights_heads import require_plain_header
from diffood.runtime.method.scoring import Float
from diffood.runtime.records import one_line

PROCESSOR = "preprocessor_config.json"
INDICES = "model.safetensors.index*.json"  # of shards
MAX_CONFIG_BYTES = 2**25  # names of 22,000 classes, twice
PROBE = (96, 128)  # height and width of the picture a processor is tried on; not square, so that its ratio shows
# Largest difference from the processor's own picture, in grey levels: it rounds, and a crop may fall between pixels.
CLOSE = 4.0
_FILTERS: dict[int, Filter] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}  # Pillow's numbers


class LogitsOnly(nn.Module):
    """Takes the logits out of the output of a model of transformers, which may want blue before red."""

    def __init__(self, model: nn.Module, *, swapped: bool = False) -> None:
        super().__init__()
        self.model, self.swapped = model, swapped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to logits."""
        logits: torch.Tensor = self.model(pixel_values=x.flip(1) if self.swapped else x).logits
        return logits


def load(source: ClassifierSource, _size: tuple[int, int]) -> LoadedClassifier:
    """Load a folder that save_pretrained wrote, safetensors only, no code of its own. Raises ExportError."""
    folder = Path(source.name)
    if source.weights is not None:
        raise ExportError("A folder of transformers:DIR holds its own weights: leave --classifier-weights out.")
    if not (folder / "config.json").is_file():
        raise ExportError(f"{folder} holds no config.json; give a folder that save_pretrained wrote.")
    files, variant = _find_files(folder)
    if not files:
        raise ExportError(
            f"{folder} holds no model.safetensors, and pickles are not opened. Save it again where it was trained: "
            "model.save_pretrained(folder, safe_serialization=True)."
        )
    for index in sorted(folder.glob(INDICES)):
        read_config(index, MAX_CONFIG_BYTES)
    for file in files:
        require_plain_header(file)
    kinds = [str(kind) for kind in read_config(folder / "config.json", MAX_CONFIG_BYTES).get("architectures") or ()]
    if not any("ForImageClassification" in kind for kind in kinds):
        raise ExportError(f"{folder} is a {', '.join(kinds) or 'model without a name'}, not an image classifier.")
    library = import_library("transformers", "`transformers:`", "classifiers")
    try:
        model, found = library.AutoModelForImageClassification.from_pretrained(
            folder,
            variant=variant,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise ExportError(f"transformers cannot load {folder}: {type(error).__name__}: {_short(error)}") from None
    unset = [*found["missing_keys"], *found["mismatched_keys"]]
    if unset:  # transformers would leave them random
        raise ExportError(f"{folder} holds no weights for {unset[0]} and {len(unset) - 1} more; save the whole model.")
    names = tuple(str(model.config.id2label[index]) for index in sorted(model.config.id2label))
    preprocessing, swapped, notes = _preprocessing(library, folder, model.config)
    said = "" if notes else "its image processor" + (", blue first" if swapped else "")
    origin = f"transformers {type(model).__name__} {folder.name}"
    if variant:
        notes = (f"{folder.name}: taken from {files[0].name}", *notes)
    model = LogitsOnly(model, swapped=swapped)
    return LoadedClassifier(model, origin, hash_files(files), preprocessing, said, names, notes=notes)


def _find_files(folder: Path) -> tuple[list[Path], str | None]:
    """The weights in one file or in shards, and their variant, such as fp16, where there are no plain ones."""
    by_variant: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        if match := re.fullmatch(r"model(?:\.([^.]+?))?(?:-\d+-of-\d+)?\.safetensors", path.name):
            by_variant.setdefault(match[1] or "", []).append(path)
    variant = min(by_variant, default="")
    return by_variant.get(variant, []), variant or None


def _preprocessing(library: Any, folder: Path, config: Any) -> tuple[Preprocessing, bool, tuple[str, ...]]:
    """What the folder's image processor does, found by trying it on pictures; and a note where there is none.

    Whether it puts blue first, as that of MobileViT does, is the second value.
    """
    if (folder / PROCESSOR).is_file():
        read_config(folder / PROCESSOR)
    elif not hasattr(config, "pretrained_cfg"):  # networks of timm keep it there
        size = getattr(config, "image_size", None)
        known = (size, size) if isinstance(size, int) else None
        return (
            Preprocessing(size=known),
            False,
            (f"no {PROCESSOR} in {folder.name}: say by --mean, --std and --input-size what the classifier wants",),
        )
    try:
        processor = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        black, white = (_run(processor, np.full((*PROBE, 3), value, np.uint8)) for value in (0, 255))
        picture = _picture()
        wanted = _run(processor, picture)
    except Exception as error:
        raise ExportError(
            f"The image processor of {folder} does not run: {type(error).__name__}: {_short(error)}"
        ) from None
    slope = (white - black).mean((1, 2))
    mean, std = -black.mean((1, 2)) / slope, 1 / slope
    for able in _candidates(processor, (wanted.shape[1], wanted.shape[2])):
        rows, columns = able.matrices(*PROBE) or (np.eye(PROBE[0]), np.eye(PROBE[1]))
        made = rows @ (picture.transpose(2, 0, 1) / 255.0) @ columns
        if made.shape == wanted.shape:
            levels = wanted * std[:, None, None] + mean[:, None, None]
            for order in (slice(None), slice(None, None, -1)):
                if 255 * np.abs(made - levels[order]).max() <= CLOSE:
                    found = replace(able, mean=tuple(map(float, mean[order])), std=tuple(map(float, std[order])))
                    return found, order.step is not None, ()
    raise ExportError(
        f"{type(processor).__name__} of {folder} prepares images in a way that is not supported: write a factory "
        "(FILE.py:FACTORY) that prepares them and loads the model."
    )


def _candidates(processor: Any, size: tuple[int, int]) -> Iterator[Preprocessing]:
    """The ways in which processors are known to resize; trying them on pictures shows which one it is."""
    if not getattr(processor, "do_resize", True) and size == PROBE:
        yield Preprocessing()
        return
    of_timm = getattr(processor, "data_config", None)
    if of_timm:
        yield timm.read_config(of_timm)
    sizes = dict(getattr(processor, "size", None) or {})
    kind = _FILTERS.get(int(getattr(processor, "resample", None) or 0), "bilinear")
    if sizes.get("height") and sizes.get("width"):
        yield Preprocessing(size, resize=(sizes["height"], sizes["width"]), filter=kind)
    edge = sizes.get("shortest_edge")
    if edge:
        shares = (1.0, getattr(processor, "crop_pct", None) or 1.0, 224 / 256)
        for made in dict.fromkeys(int(edge / share) for share in shares):
            whole = Preprocessing(resize=(made, made), keep_ratio=True, filter=kind)
            yield whole  # first: cut to the size that the test picture comes to, it would be the same on that alone
            yield replace(whole, size=size)
    yield Preprocessing(size, filter=kind)


def _run(processor: Any, picture: npt.NDArray[np.uint8]) -> Float:
    made = processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    return np.asarray(made[0], np.float64)


def _picture() -> npt.NDArray[np.uint8]:
    """A smooth picture, different at every place and in every channel, far from black and white, where filters clip."""
    y, x = (np.linspace(0, 1, side) for side in PROBE)
    waves = [128 + 50 * np.sin(4 * y[:, None] + k) + 40 * np.cos(5 * x[None] + 2 * k) for k in range(3)]
    return np.asarray(np.stack(waves, -1).round(), np.uint8)


def _short(error: Exception) -> str:
    return one_line(error)[:300]
