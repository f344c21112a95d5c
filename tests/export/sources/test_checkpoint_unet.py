"""UNets of OpenAI's and DiffOOD's checkpoints: the same outputs as an independent writing of the networks."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from written_networks import DDIM, Draw, OpenAI  # noqa: E402

from diffood.errors import ExportError, UsageError  # noqa: E402
from diffood.export.sources.checkpoint_unet import build, names_of, schedule_of  # noqa: E402
from diffood.export.sources.presets import PRESETS, load_checkpoint_config  # noqa: E402
from diffood.export.sources.unet import load_unet  # noqa: E402

# name: (the independent network, size of its images, channels, what --unet-config's file says)
SMALL = {
    "improved, four heads, scale and shift": (
        OpenAI(32, 6, 1, (2, 4), (1, 2, 3), 5, num_heads=4, use_scale_shift_norm=True),
        16,
        3,
        {"preset": "improved-imagenet64", "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2, 3],
         "image_size": 16, "attention_resolutions": [8, 4], "diffusion_steps": 20},
    ),
    "improved without scale and shift, other heads on the way up": (
        OpenAI(32, 3, 1, (2,), (1, 2), num_heads=1, num_heads_upsample=2),
        8,
        3,
        {"layout": "openai", "image_size": 8, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2],
         "attention_resolutions": [4], "num_heads": 1, "num_heads_upsample": 2, "use_scale_shift_norm": False},
    ),
    "guided, heads of 16 channels in the legacy order": (
        OpenAI(32, 6, 2, (2, 4), (1, 1, 2), 3, num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True),
        16,
        3,
        {"preset": "guided-imagenet256", "num_channels": 32, "channel_mult": [1, 1, 2], "num_head_channels": 16,
         "image_size": 16, "attention_resolutions": [8, 4]},
    ),
    "guided, the new order, half the width first": (
        OpenAI(64, 6, 1, (2, 4), (0.5, 1, 1), 3, num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True,
               use_new_attention_order=True),
        16,
        3,
        {"preset": "guided-imagenet64", "num_channels": 64, "num_res_blocks": 1, "channel_mult": [0.5, 1, 1],
         "num_head_channels": 16, "image_size": 16, "attention_resolutions": [8, 4]},
    ),
    "DiffOOD's iDDPM, with a null class": (
        OpenAI(32, 6, 1, (2,), (1, 2), 4, num_heads=4, use_scale_shift_norm=True),
        8,
        3,
        {"preset": "diffood-iddpm", "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2], "image_size": 8,
         "attention_resolutions": [4], "diffusion_steps": 20},
    ),
    "DiffOOD's DDIM, with a null class": (
        DDIM(32, (1, 2, 2), 2, (8,), num_classes=3),
        16,
        3,
        {"preset": "diffood-ddim", "ch": 32, "ch_mult": [1, 2, 2], "image_size": 16, "attn_resolutions": [8]},
    ),
    "DiffOOD's DDIM without labels, grey": (
        DDIM(32, (1, 1), 1, (), channels=1),
        8,
        1,
        {"layout": "ddim", "in_channels": 1, "ch": 32, "ch_mult": [1, 1], "image_size": 8, "num_res_blocks": 1,
         "attn_resolutions": []},
    ),
}  # fmt: skip


def labels_of(network: OpenAI | DDIM) -> int:
    return network.num_classes + (isinstance(network, DDIM) and network.num_classes > 0)


def inputs(network: OpenAI | DDIM, size: int, channels: int) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(3, channels, size, size, generator=draw)
    labels = torch.tensor([0, labels_of(network) - 1, 1]) if labels_of(network) else None
    return x, torch.tensor([0.0, 7.5, 999.0]), labels


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_checkpoint_gives_what_the_published_network_gives(name: str, ending: str, tmp_path: Path) -> None:
    network, size, channels, config = SMALL[name]
    x, time, labels = inputs(network, size, channels)
    draw = Draw()
    expected = network(draw, x, time, labels)
    path = tmp_path / f"model.{ending}"
    if ending == "pt":
        torch.save(draw.state, path)
    else:
        from safetensors.torch import save_file

        save_file(draw.state, path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    unet = load_unet(path, str(tmp_path / "config.json"))
    with torch.no_grad():
        found = unet.model(x, time, class_labels=labels, return_dict=False)[0]
    assert (unet.channels, unet.height, unet.width, unet.label_count) == (channels, size, size, labels_of(network))
    assert float(expected.abs().max()) > 0.3
    assert float((found - expected).abs().max()) < 1e-5
