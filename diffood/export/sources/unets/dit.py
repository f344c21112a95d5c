"""Loads a diffusers DiTTransformer2DModel folder: Peebles & Xie 2023 (arXiv 2212.09748), class labels, null last."""

from pathlib import Path

from diffood.errors import ExportError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.libraries import import_diffusers
from diffood.export.sources.unets.denoiser import make_unet, read_sample_size
from diffood.export.sources.unets.diffusers_model import load_diffusers
from diffood.export.sources.unets.unet import UNet


def load(folder: Path) -> UNet:
    """The transformer, asked as a UNet is: it takes the same arguments in the same order.

    Raises ExportError where its weights do not load, or its shapes do not fit.
    """
    size = read_sample_size(folder, read_config(folder / "config.json").get("sample_size"))
    loaded = load_diffusers(folder, import_diffusers("DiTTransformer2DModel"))
    patch = loaded.config["patch_size"]
    if any(side % patch for side in size):
        raise ExportError(f"{folder}: the sample_size {size[0]} is not a multiple of the patch_size {patch}.")
    # The last row of its table of labels is the null class, for labels dropped in training.
    labels = loaded.model.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.num_embeddings
    return make_unet(loaded, size, labels)
