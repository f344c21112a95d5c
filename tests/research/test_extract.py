"""A cache of models that are not trained holds what torch says of the same images."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import save_file

from diffood.zoo.classifier import SmallResNet
from research.left_out.cache import SplitCache
from research.left_out.extract import extract
from research.left_out.paths import extract_paths
from research.train_unet import build_unet


@pytest.mark.slow  # both models are exported twice
def test_cache_holds_what_torch_says(garments: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier, unet, scheduler = SmallResNet(classes=7).eval(), build_unet(7).eval(), DDPMScheduler()
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    unet.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    given = (tmp_path, garments, (3, 7, 9))
    extract(*given, tmp_path / "split.npz", 3, 1)
    extract_paths(*given, tmp_path / "split.paths.npz", 3, 1)
    cache, paths = SplitCache(tmp_path / "split.npz"), SplitCache(tmp_path / "split.paths.npz")
    close = {"rtol": 1e-3, "atol": 1e-3}
    with torch.no_grad():
        for time, repeat, beta, kind in ((60, 0, 0.0, "one"), (360, 1, 2.0, "guided")):
            denoised = torch.from_numpy(cache.denoised("near-7", time, repeat, beta))
            logits, features = classifier((denoised + 1) / 2)
            np.testing.assert_allclose(cache[f"near-7/t{time}-{repeat}/{kind}/logits"], logits, **close)
            np.testing.assert_allclose(cache[f"near-7/t{time}-{repeat}/{kind}/features"], features, **close)
        x = torch.from_numpy(cache["test/images"][:, None] / 127.5 - 1).float()
        noise = []
        for step in range(10):  # DDIM backwards: Song et al. 2021
            level = scheduler.alphas_cumprod[100 * step]
            following = scheduler.alphas_cumprod[100 * step + 100] if step < 9 else torch.tensor(0.0)
            eps = unet(x, 100 * step, class_labels=torch.full((3,), 7)).sample
            clean = ((x - (1 - level).sqrt() * eps) / level.sqrt()).clamp(-1, 1)
            noise.append((x - level.sqrt() * clean) / (1 - level).sqrt())
            x = following.sqrt() * clean + (1 - following).sqrt() * noise[-1]
    change = [10 * (after - before) for before, after in itertools.pairwise(noise)]
    for column, (values, power) in enumerate((v, k) for v in (noise, change) for k in (1, 2, 3)):
        expected = sum((each.double() ** power).sum((1, 2, 3)) for each in values)
        np.testing.assert_allclose(paths["test/path"][:, column], expected, rtol=1e-2, atol=1)
    assert "alpha_bar" in cache.keys
