"""Loads a diffusers DiTTransformer2DModel folder: Peebles & Xie 2023 (arXiv 2212.09748), class labels, null last."""

from pathlib import Path
from typing import Any

from diffood.errors import ExportError
from diffood.export.sources.unets.pretrained import WEIGHTS, load_pretrained, require_channels
from diffood.export.sources.unets.unet import UNet
from diffood.export.sources.weights import hash_file


def load_dit(folder: Path) -> UNet:
    """The transformer, asked as a UNet is: it takes the same arguments in the same order.

    Raises ExportError where its weights do not load, or its shapes do not fit.
    """
    from diffusers import DiTTransformer2DModel

    model: Any = load_pretrained(folder, DiTTransformer2DModel)
    config = model.config
    channels, size, patch = config["in_channels"], config["sample_size"], config["patch_size"]
    require_channels("The transformer", channels, model.out_channels)
    if size % patch:
        raise ExportError(f"The transformer's sample_size {size} is no multiple of its patch_size {patch}.")
    # The last row of its table of labels is what training puts in the place of a label that is dropped.
    labels = model.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.num_embeddings
    return UNet(
        model,
        channels,
        size,
        size,
        labels,
        f"diffusers DiTTransformer2DModel {folder.name}",
        hash_file(folder / WEIGHTS),
    )
