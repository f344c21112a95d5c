"""Opens a UNet: a folder that diffusers saved, or a checkpoint with its hyper-parameters."""

from dataclasses import replace
from pathlib import Path

from diffood.errors import ExportError, UsageError
from diffood.export.sources.unets.edm import Preconditioned
from diffood.export.sources.unets.scheduler import load_schedule
from diffood.export.sources.unets.unet import UNet


def load_unet(spec: str | Path, config: str | None = None, scheduler: Path | None = None) -> UNet:
    """Open a diffusers folder or a checkpoint file.

    Args:
        spec: The folder or the file.
        config: Name of a preset or a .json file of hyper-parameters, for a checkpoint.
        scheduler: A scheduler config, or the folder of one, that wins over what the source says of its schedule.

    Raises:
        ExportError: Something is missing or does not fit.
        UsageError: A config is missing, or is given for a folder.
    """
    path = Path(spec)
    if path.is_dir():
        if config is not None:
            raise UsageError(f"--unet-config is for checkpoint files; the folder {path} has its own config.json.")
        from diffood.export.sources.unets.folder import load_folder

        unet = load_folder(path, scheduler)
    elif path.is_file():
        from diffood.export.sources.unets.checkpoint_unet import load_checkpoint_unet

        unet = load_checkpoint_unet(path, config)
        unet = replace(unet, schedule=load_schedule(path, scheduler)) if scheduler else unet
    else:
        raise ExportError(f"No UNet at {path}; give a folder that diffusers saved, or a checkpoint file.")
    model = unet.model.eval().float().requires_grad_(False)
    if how := unet.schedule.preconditioning:
        # The clipping is of images; latents have no such range.
        how = replace(how, clip=False) if unet.autoencoder else how
        model = Preconditioned(model, how, unet.channels).eval()
    return replace(unet, model=model)
