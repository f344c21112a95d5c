"""EDM and consistency models: the denoiser of the published formulas, and steps that are those of the sigma space."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from refusals import assert_refused
from written_networks import Draw, OpenAI

from diffood.errors import ExportError
from diffood.export.sources.unets.load import load_unet
from diffood.export.sources.unets.scheduler import make_schedule
from diffood.export.sources.unets.unet import UNet
from diffood.runtime.method.schedule import Grid, build_table

STEPS = 12
LEAST, MOST, DATA = 0.01, 50.0, 0.6


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A UNet2DModel without labels; random weights."""
    torch.manual_seed(3)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    return diffusers.UNet2DModel(sample_size=8, layers_per_block=1, norm_num_groups=4, **blocks).eval()


def folder(network: torch.nn.Module, scheduler: str, path: Path, **changes: object) -> UNet:
    """The UNet that is loaded from a pipeline's folder with this scheduler."""
    settings = {"num_train_timesteps": STEPS, "sigma_min": LEAST, "sigma_max": MOST, "sigma_data": DATA} | changes
    network.save_pretrained(path / "unet")
    getattr(diffusers, scheduler)(**settings).save_pretrained(path / "scheduler")
    return load_unet(path)


def karras(rho: float) -> list[float]:
    """Karras et al. 2022, eq. 5, ascending."""
    ends = MOST ** (1 / rho), LEAST ** (1 / rho)
    return [(ends[0] + i / (STEPS - 1) * (ends[1] - ends[0])) ** rho for i in range(STEPS)][::-1]


def denoise(network: torch.nn.Module, x: torch.Tensor, sigma: float, kind: str) -> torch.Tensor:
    """D(x; sigma) of x = x0 + sigma·noise: Karras et al. 2022, table 1; Song et al. 2023, appendix C."""
    least = LEAST if kind == "consistency" else 0.0
    c_skip = DATA**2 / ((sigma - least) ** 2 + DATA**2)
    c_out = (sigma - least) * DATA / math.sqrt(sigma**2 + DATA**2) * (-1 if kind == "v_prediction" else 1)
    c_in = 1 / math.sqrt(sigma**2 + DATA**2)
    c_noise = math.log(sigma) / 4 * (1000 if kind == "consistency" else 1)
    with torch.no_grad():
        clean = c_skip * x + c_out * network(c_in * x, torch.full((len(x),), c_noise)).sample
    return clean.clamp(-1, 1) if kind == "consistency" else clean


CASES = {
    "EDM": ("EDMEulerScheduler", {}, karras(7), "epsilon"),
    "EDM in v": (
        "EDMDPMSolverMultistepScheduler",
        {"prediction_type": "v_prediction", "rho": 5.0},
        karras(5),
        "v_prediction",
    ),
    "EDM, exponential": (
        "EDMEulerScheduler",
        {"sigma_schedule": "exponential"},
        [LEAST * (MOST / LEAST) ** (i / (STEPS - 1)) for i in range(STEPS)],
        "epsilon",
    ),
    "consistency": ("CMStochasticIterativeScheduler", {}, karras(7), "consistency"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_preconditioned_network_is_the_published_denoiser(
    case: str, network: torch.nn.Module, tmp_path: Path
) -> None:
    scheduler, changes, sigmas, kind = CASES[case]
    unet = folder(network, scheduler, tmp_path, **changes)
    assert unet.schedule.prediction == "sample"
    assert unet.schedule.alpha_bar == pytest.approx([1 / (1 + sigma**2) for sigma in sigmas], rel=1e-9)
    draw = torch.Generator().manual_seed(5)
    for index, sigma in enumerate(sigmas):
        x = (torch.randn(2, 3, 8, 8, generator=draw) + sigma * torch.randn(2, 3, 8, 8, generator=draw)).float()
        expected = denoise(network, x, sigma, kind)
        with torch.no_grad():
            found = unet.model(x / math.sqrt(1 + sigma**2), torch.full((2,), float(index)))[0]
        assert float((found - expected).abs().max()) < 1e-5 * max(1, sigma)


def test_diffusers_own_scheduler_has_the_same_levels_and_denoiser(network: torch.nn.Module, tmp_path: Path) -> None:
    unet = folder(network, "EDMEulerScheduler", tmp_path)
    theirs = diffusers.EDMEulerScheduler.from_pretrained(tmp_path / "scheduler")
    theirs.set_timesteps(STEPS)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for index, sigma in enumerate(theirs.sigmas[:-1].flip(0)):
        noisy = x * float(sigma)
        with torch.no_grad():
            output = network(theirs.precondition_inputs(noisy, sigma), theirs.precondition_noise(sigma)).sample
            found = unet.model(noisy / math.sqrt(1 + float(sigma) ** 2), torch.tensor([float(index)]))[0]
        expected = theirs.precondition_outputs(noisy, output, sigma)
        assert float((found - expected).abs().max()) < 1e-4


def test_a_bundles_steps_are_eulers_in_sigma(network: torch.nn.Module, tmp_path: Path) -> None:
    unet = folder(network, "EDMEulerScheduler", tmp_path)
    sigmas, start, stride = karras(7), 9, 4
    table = build_table(Grid(unet.schedule.alpha_bar, "textbook"), "ddim", unet.schedule.prediction, start, stride)
    noisy = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * sigmas[start]
    x = noisy / math.sqrt(1 + sigmas[start] ** 2)
    for row, (here, there) in enumerate([(9, 5), (5, 1), (1, 0)]):
        clean = denoise(network, noisy, sigmas[here], "epsilon")
        next_sigma = sigmas[there] if there else 0.0
        noisy = noisy + (next_sigma - sigmas[here]) * (noisy - clean) / sigmas[here]
        p_x, p_m, c_x, c_eps = map(float, table.coefficients[row])
        with torch.no_grad():
            output = unet.model(x, torch.full((2,), float(table.times[row])))[0]
        x = c_x * x + c_eps * (p_x * x + p_m * output)
        assert float((x - noisy / math.sqrt(1 + next_sigma**2)).abs().max()) < 1e-4


@pytest.mark.parametrize("kind", ["edm", "consistency"])
def test_openais_karras_checkpoints_are_preconditioned_too(kind: str, tmp_path: Path) -> None:
    network = OpenAI(32, 3, 1, (2,), (1, 2), 3, num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True,
                     use_new_attention_order=True, attention_dims=2)  # fmt: skip
    sigmas = np.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 40) ** 7
    index, draw, labels = 25, Draw(), torch.tensor([2, 0])
    sigma, shift = float(sigmas[index]), 0.002 if kind == "consistency" else 0.0
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4)) * sigma
    asked = torch.full((2,), 250 * math.log(sigma))
    output = network(draw, x / math.sqrt(sigma**2 + 0.25), asked, labels)
    expected = 0.25 / ((sigma - shift) ** 2 + 0.25) * x + (sigma - shift) / 2 / math.sqrt(sigma**2 + 0.25) * output
    torch.save(draw.state, tmp_path / "model.pt")
    small = {"num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2], "image_size": 8, "num_head_channels": 16}
    config = {"preset": f"{kind}-imagenet64", "attention_resolutions": [4], "diffusion_steps": 40, **small}
    (tmp_path / "config.json").write_text(json.dumps(config))
    unet = load_unet(tmp_path / "model.pt", str(tmp_path / "config.json"))
    with torch.no_grad():
        found = unet.model(x / math.sqrt(1 + sigma**2), torch.full((2,), float(index)), class_labels=labels)[0]
    expected = expected.clamp(-1, 1) if kind == "consistency" else expected
    assert float((found - expected).abs().max()) < 1e-4


def test_levels_stay_exact_where_the_network_is_halved(network: torch.nn.Module, tmp_path: Path) -> None:
    unet = folder(network, "EDMEulerScheduler", tmp_path)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        whole = unet.model(x, torch.tensor([0.0]))[0]
        half = unet.model.half()(x.half(), torch.tensor([0.0]))[0]
    assert half.dtype == torch.float32
    assert float((half - whole).abs().max()) < 2e-3


IMPOSSIBLE: list[tuple[dict[str, object], str]] = [
    ({"num_train_timesteps": 1}, "num_train_timesteps is 1"),
    ({"sigma_min": -1}, "sigma_min of the EDMEulerScheduler is -1"),
    ({"sigma_min": 100.0}, "sigma_min 100.0 is not below sigma_max 80.0"),
    ({"rho": "seven"}, "rho of the EDMEulerScheduler is 'seven'"),
    ({"sigma_schedule": "beta"}, "sigma_schedule 'beta'"),
    ({"prediction_type": "sample"}, "prediction_type 'sample'"),
]


def test_impossible_levels_are_explained() -> None:
    def make(config: dict[str, object]) -> None:
        make_schedule({"_class_name": "EDMEulerScheduler", **config}, "scheduler_config.json")

    assert_refused(ExportError, IMPOSSIBLE, make)
