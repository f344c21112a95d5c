"""The two halves of an autoencoder as torch modules that become graphs: images to latents, and back."""

import torch
from torch import nn

from diffood.export.graphs.modules import weight_type
from diffood.export.sources.unets.autoencoder import Autoencoder


class EncodeGraph(nn.Module):
    """x [B, C, H, W] in [-1, 1] -> z [B, c, h, w], float32: the mean of the latent, scaled; nothing is sampled."""

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.encoder, self.quant_conv = autoencoder.model.encoder, autoencoder.model.quant_conv
        self.channels = autoencoder.channels
        _add_scaling(self, autoencoder)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode; of a distribution's 2c channels the first c are its mean."""
        encoded = self.encoder(x.to(weight_type(self.encoder)))
        if self.quant_conv is not None:
            encoded = self.quant_conv(encoded)
        mean: torch.Tensor = encoded[:, : self.channels].float()
        return (mean - self.offset) * self.scale


class DecodeGraph(nn.Module):
    """z [B, c, h, w] -> x [B, C, H, W], float32, not clamped; through the nearest codes where there is a code book."""

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv = autoencoder.model.decoder, autoencoder.model.post_quant_conv
        self.codes = autoencoder.codes
        _add_scaling(self, autoencoder)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Decode."""
        latent = z / self.scale + self.offset
        latent = latent.to(weight_type(self.decoder))
        if self.codes is not None:
            latent = nearest(latent, self.codes.weight)
        if self.post_quant_conv is not None:
            latent = self.post_quant_conv(latent)
        x: torch.Tensor = self.decoder(latent).float()
        return x


def nearest(latent: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The code [c] nearest to every place of latents [B, c, h, w], of codes [N, c].

    van den Oord et al. 2017 (arXiv 1711.00937), eq. 2: |z - e|² is least where z·e - |e|²/2 is largest.
    """
    height, width = latent.shape[2:]
    places = latent.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    closeness = (places @ codes.T).float() - codes.float().square().sum(dim=1) / 2
    chosen = codes[closeness.argmax(dim=1)]
    return chosen.reshape(-1, height, width, codes.shape[1]).permute(0, 3, 1, 2)


def _add_scaling(module: nn.Module, autoencoder: Autoencoder) -> None:
    module.register_buffer("offset", torch.tensor(autoencoder.offset).reshape(1, -1, 1, 1))
    module.register_buffer("scale", torch.tensor(autoencoder.scale).reshape(1, -1, 1, 1))
