"""Checkpoints and EDM folders through the whole export: what a bundle's graphs give is what the networks give."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("onnx")

from written_networks import DDIM, Draw, OpenAI

from diffood.cli import app
from diffood.errors import UsageError
from diffood.export.build import export_bundle
from diffood.export.request import ExportRequest
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import open_bundle

CLASSES, STEPS, SIZE = 3, 8, 8
FACTORY = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def build():
    torch.manual_seed(0)
    return Small()
"""
TWO_LEVELS = {"channel_mult": [1, 2], "attention_resolutions": [4]}
ODD_TIME = [3.0, 0.0, 7.0]
NETWORKS = {
    "guided": (
        OpenAI(32, 6, 1, (2,), (1, 2), CLASSES, num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True),
        {"preset": "guided-imagenet256", "num_channels": 32, "num_head_channels": 16, **TWO_LEVELS},
    ),
    "iddpm": (
        OpenAI(32, 6, 1, (1,), (1,), CLASSES + 1, num_heads=4, use_scale_shift_norm=True),
        {"preset": "diffood-iddpm", "num_channels": 32, "channel_mult": [1], "attention_resolutions": [8]},
    ),
    "ddim": (
        DDIM(32, (1, 2), 1, (), num_classes=CLASSES),
        {"preset": "diffood-ddim", "ch": 32, "ch_mult": [1, 2], "attn_resolutions": []},
    ),
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """FILE.py:FACTORY of an RGB classifier of three classes."""
    file = tmp_path_factory.mktemp("classifier") / "net.py"
    file.write_text(FACTORY)
    return f"{file}:build"


def run(bundle: Path, role: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's output in a bundle's step, whose coefficients are set to pass it on."""
    session = onnxruntime.InferenceSession(bundle / f"{role}.onnx", providers=["CPUExecutionProvider"])
    passing = torch.tensor([[0.0, 1.0, 1.0, 0.0]]).repeat(len(inputs["x"]), 1)
    given = {name: value.numpy() for name, value in (inputs | {"coefficients": passing}).items()}
    return torch.from_numpy(session.run(["epsilon"], given)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoints_bundle_gives_what_the_published_network_gives(
    name: str, classifier: str, tmp_path: Path
) -> None:
    network, config = NETWORKS[name]
    x = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9))
    time, label, draw = torch.tensor(ODD_TIME), torch.tensor([0, 2, 1]), Draw()
    expected = network(draw, x, time, label)[:, :3]
    torch.save(draw.state, tmp_path / "ema.ckpt")
    steps = 64 if name == "guided" else STEPS  # OpenAI's linear betas grow as steps become fewer; 8 are too few
    (tmp_path / "own.json").write_text(
        json.dumps(config | {"image_size": SIZE, "num_res_blocks": 1, "diffusion_steps": steps})
    )
    lines: list[str] = []
    sources = ModelSources(tmp_path / "ema.ckpt", ClassifierSource(classifier), unet_config=str(tmp_path / "own.json"))
    export_bundle(ExportRequest(tmp_path / "bundle", sources), lines.append)
    asked = {"x": x, "time": time, "label": label}
    assert float((run(tmp_path / "bundle", "step_plain", asked) - expected).abs().max()) < 1e-4
    manifest = open_bundle(tmp_path / "bundle").manifest
    kind = "cosine" if name == "iddpm" else "linear"
    assert f"schedule    {kind}, of own.json: {steps} steps, predicts epsilon" in lines
    unguided = [line for line in lines if line.startswith("guidance ")]
    if name == "guided":
        assert (manifest.unet.labels, manifest.unet.label_count) == ("class", CLASSES)
        assert unguided == [
            "guidance    none: the UNet has labels for classes but no null class; the plans are unguided"
        ]
        assert {plan.guidance for plan in manifest.plans.values()} == {0.0}
        return
    assert not unguided
    assert (manifest.unet.labels, manifest.unet.label_count) == ("class+null", CLASSES + 1)
    null = network(draw, x, time, torch.full((3,), CLASSES))[:, :3]
    beta = torch.tensor([2.0, 0.0, 0.5])
    guided = run(tmp_path / "bundle", "step_guided", asked | {"guidance": beta})
    beta = beta[:, None, None, None]
    assert float((guided - ((1 + beta) * expected - beta * null)).abs().max()) < 1e-4


def test_an_edm_folder_becomes_a_bundle_of_denoisers(
    classifier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(4)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    network = diffusers.UNet2DModel(
        sample_size=SIZE, layers_per_block=1, norm_num_groups=4, add_attention=False, **blocks
    ).eval()
    network.save_pretrained(tmp_path / "pipeline" / "unet")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "pipeline" / "scheduler")
    edm = diffusers.EDMEulerScheduler(num_train_timesteps=STEPS)
    edm.save_pretrained(tmp_path / "edm")
    words = ["export", "--unet", tmp_path / "pipeline", "--scheduler", tmp_path / "edm", "--classifier", classifier]
    app([*map(str, words), "--output", str(tmp_path / "bundle")], standalone_mode=False)
    assert f"schedule    scheduler_config.json: {STEPS} steps, predicts sample" in capsys.readouterr().out
    edm.set_timesteps(STEPS)
    sigmas = edm.sigmas[:-1].flip(0).double().numpy()
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.alpha_bar == pytest.approx(1 / (1 + sigmas**2), rel=1e-5)
    sigma = torch.from_numpy(sigmas[np.array(ODD_TIME, int)]).float()[:, None, None, None]
    noisy = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9)) * sigma
    with torch.no_grad():
        output = network(noisy / (sigma**2 + 0.25).sqrt(), sigma.flatten().log() / 4).sample
    clean = 0.25 / (sigma**2 + 0.25) * noisy + sigma / 2 / (sigma**2 + 0.25).sqrt() * output
    asked = {"x": noisy / (1 + sigma**2).sqrt(), "time": torch.tensor(ODD_TIME)}
    assert float((run(tmp_path / "bundle", "step_plain", asked) - clean).abs().max()) < 1e-4


def test_a_checkpoint_without_its_config_is_wrong_usage(classifier: str, tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "model.pt")
    words = ["export", "--unet", tmp_path / "model.pt", "--classifier", classifier, "--output", tmp_path / "bundle"]
    with pytest.raises(UsageError, match="add --unet-config"):
        app(list(map(str, words)), standalone_mode=False)
