"""Opens a folder that diffusers saved: finds what denoises in it, its schedule, and the autoencoder of its latents."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from diffood.errors import ExportError
from diffood.export.class_names import read_class_names
from diffood.export.sources.json_config import read_config
from diffood.export.sources.unets import dit, unet2d, unet2d_condition
from diffood.export.sources.unets.autoencoder import FOLDERS, find_autoencoder, load_autoencoder
from diffood.export.sources.unets.diffusers_model import WEIGHTS
from diffood.export.sources.unets.scheduler import load_schedule
from diffood.export.sources.unets.unet import UNet
from diffood.runtime.bundle.trained import read_trained

CLASS_NAMES = (
    "class_names.txt"  # next to the weights: the classes of a UNet's labels, as `diffood train-unet` writes them
)
# As diffusers' pipelines name what denoises, and its training scripts the average over training, in checkpoint-500/.
AVERAGED = "_ema"
PARTS = ("transformer_ema", "unet_ema", "transformer", "unet")

# The classes of diffusers that can be exported, one line each: a new one is a module with `load(folder) -> UNet`.
DENOISERS: dict[str, Callable[[Path], UNet]] = {
    "UNet2DModel": unet2d.load,
    "UNet2DConditionModel": unet2d_condition.load,
    "DiTTransformer2DModel": dit.load,
}


def load_folder(folder: Path, scheduler: Path | None = None) -> UNet:
    """Load a pipeline's folder, or the model's own within it, with the autoencoder next to it if there is one.

    Args:
        folder: Holds config.json and weights, or `unet` or `transformer` that does.
        scheduler: A scheduler config, or the folder of one, in place of that next to the model.

    Raises:
        ExportError: Something is missing, of another kind, or does not fit; the message says what.

    """
    denoiser = find_denoiser(folder)
    if not (denoiser / "config.json").is_file():
        raise ExportError(f"{denoiser} holds no diffusers UNet: config.json and {WEIGHTS} are needed there.")
    kind = read_config(denoiser / "config.json").get("_class_name")
    if kind not in DENOISERS:
        raise ExportError(f"{denoiser} is a {kind}; what can be exported is {', '.join(DENOISERS)}.")
    pipeline = denoiser.absolute().parent
    autoencoder = find_autoencoder(pipeline)
    if autoencoder is None:
        _require_no_latents(pipeline)
    unet = DENOISERS[kind](denoiser)
    names = denoiser / CLASS_NAMES
    unet = replace(
        unet,
        schedule=load_schedule(denoiser.absolute(), scheduler),
        class_names=read_class_names(names) if names.is_file() else None,
        trained_on=read_trained(denoiser),
        notes=(*_notes_on_averages(denoiser), *unet.notes),
    )
    if autoencoder:
        return replace(unet, autoencoder=load_autoencoder(autoencoder, (unet.channels, unet.height, unet.width)))
    if unet.channels not in (1, 3):
        raise ExportError(
            f"{denoiser} takes {unet.channels} channels, so it denoises latents, and there is no autoencoder next to "
            f"it: give the pipeline's folder with {' or '.join(f'{name}/' for name in FOLDERS)} in it."
        )
    return unet


def find_denoiser(folder: Path) -> Path:
    """The folder of the model itself, where a pipeline's is given; a scheduler and an autoencoder lie next to it."""
    return next((folder / part for part in PARTS if (folder / part / "config.json").is_file()), folder)


def _notes_on_averages(denoiser: Path) -> tuple[str, ...]:
    """Which of the plain and the averaged model of a checkpoint is taken, where there are both."""
    plain = denoiser.absolute().name.removesuffix(AVERAGED)
    averaged = denoiser.absolute().with_name(plain + AVERAGED)
    if not (averaged / "config.json").is_file():
        return ()
    if denoiser.absolute() == averaged:
        return (f"the averaged weights are taken, {averaged.name}, not {plain}",)
    return (f"{plain} is taken; the averaged weights are next to it, in {averaged.name}",)


def _require_no_latents(pipeline: Path) -> None:
    """Refuse a pipeline that lists an autoencoder whose folder is missing."""
    path = pipeline / "model_index.json"
    parts = read_config(path) if path.is_file() else {}
    latent = [name for name in FOLDERS if name in parts]
    if latent:
        raise ExportError(
            f"The UNet of {pipeline} works on the latents of its {latent[0]}, which is missing; copy the whole folder."
        )
