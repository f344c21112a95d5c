"""UNet2DModel folders and the pipelines around them: the same outputs as diffusers', and their own schedules."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from refusals import assert_refused
from small_unets import ATTENTION, small_unet

from diffood.errors import ExportError, UsageError
from diffood.export.sources.unets.load import load_unet
from diffood.export.sources.unets.scheduler import betas, make_schedule


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A UNet2DModel with attention, labels and a learned sigma; random weights."""
    return small_unet(
        sample_size=(8, 16), in_channels=3, out_channels=6, block_out_channels=(8, 16), **ATTENTION
    ).eval()


def assert_same(network: torch.nn.Module, folder: Path) -> None:
    unet = load_unet(folder)
    assert (unet.channels, unet.height, unet.width, unet.label_count) == (3, 8, 16, 4)
    x = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(1))
    asked = (x, torch.tensor([3.0, 900.0]), torch.tensor([0, 3]))
    with torch.no_grad():
        assert torch.equal(unet.model(*asked, return_dict=False)[0], network(*asked).sample)


def test_a_folder_gives_what_diffusers_gives(network: torch.nn.Module, tmp_path: Path) -> None:
    for safe, ending in ((True, "safetensors"), (False, "bin")):
        network.save_pretrained(tmp_path / ending, safe_serialization=safe)
        assert (tmp_path / ending / f"diffusion_pytorch_model.{ending}").is_file()
        assert_same(network, tmp_path / ending)


SAVED: dict[str, tuple[dict[str, Any], str]] = {
    "half precision": ({"variant": "fp16"}, "diffusion_pytorch_model.fp16.safetensors"),
    "shards": ({"max_shard_size": "4KB"}, ""),
    "shards of half precision": ({"variant": "fp16", "max_shard_size": "4KB"}, "safetensors.index.fp16.json"),
    "pickled shards": ({"max_shard_size": "4KB", "safe_serialization": False}, ""),
    "a pickled variant": ({"variant": "ema", "safe_serialization": False}, "diffusion_pytorch_model.ema.bin"),
}


def test_shards_and_variants_are_found(network: torch.nn.Module, tmp_path: Path, subtests: pytest.Subtests) -> None:
    for number, (name, (how, said)) in enumerate(SAVED.items()):
        with subtests.test(name=name):
            folder = tmp_path / str(number)
            network.save_pretrained(folder, **how)
            assert not (folder / "diffusion_pytorch_model.safetensors").exists()
            assert_same(network, folder)
            assert said in "".join(load_unet(folder).notes)
            shard = next(iter(sorted(folder.glob("*-of-*"))), None)
            if shard:
                shard.unlink()
                with pytest.raises(ExportError, match=f"names the shard {shard.name}, which is missing; copy all"):
                    load_unet(folder)


def test_plain_weights_win_over_a_variant(network: torch.nn.Module, tmp_path: Path) -> None:
    small_unet(sample_size=(8, 16)).save_pretrained(tmp_path, variant="fp16")
    network.save_pretrained(tmp_path)
    assert_same(network, tmp_path)
    assert not load_unet(tmp_path).notes


def test_the_averaged_model_of_a_checkpoint_is_taken(network: torch.nn.Module, tmp_path: Path) -> None:
    """checkpoint-500/ as diffusers' training scripts leave it: unet/ and, by EMAModel, unet_ema/."""
    small_unet(sample_size=(8, 16)).save_pretrained(tmp_path / "unet")
    ema = diffusers.training_utils.EMAModel(
        network.parameters(), model_cls=diffusers.UNet2DModel, model_config=network.config
    )
    ema.save_pretrained(tmp_path / "unet_ema")
    assert_same(network, tmp_path)
    assert load_unet(tmp_path).notes == ("the averaged weights are taken, unet_ema, not unet",)
    assert load_unet(tmp_path / "unet").notes == ("unet is taken; the averaged weights are next to it, in unet_ema",)


@pytest.mark.parametrize(
    ("pipeline", "scheduler"), [("DDPMPipeline", "DDPMScheduler"), ("DDIMPipeline", "DDIMScheduler")]
)
def test_a_pipelines_folder_brings_its_schedule(
    network: torch.nn.Module, pipeline: str, scheduler: str, tmp_path: Path
) -> None:
    schedule = getattr(diffusers, scheduler)(
        num_train_timesteps=30, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )
    getattr(diffusers, pipeline)(network, schedule).save_pretrained(tmp_path)
    for folder in (tmp_path, tmp_path / "unet"):
        assert_same(network, folder)
        found = load_unet(folder).schedule
        assert found.alpha_bar == pytest.approx(schedule.alphas_cumprod.numpy(), rel=1e-4)
        assert (found.prediction, found.origin) == ("v_prediction", "scheduler_config.json")


def test_the_users_scheduler_wins(network: torch.nn.Module, tmp_path: Path) -> None:
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    diffusers.DDPMScheduler(num_train_timesteps=50).save_pretrained(tmp_path / "mine")
    assert len(load_unet(tmp_path / "pipeline", None, tmp_path / "mine").schedule.alpha_bar) == 50


def test_attention_under_its_names_of_before_is_found(network: torch.nn.Module, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, safe_serialization=False)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = torch.load(tmp_path / "diffusion_pytorch_model.bin", weights_only=True)
    for new, before in old.items():
        state = {key.replace(f".{new}.", f".{before}."): value for key, value in state.items()}
    assert any(".proj_attn." in key for key in state)
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    assert_same(network, tmp_path)


CONFIGS: list[tuple[dict[str, object], str]] = [
    ({"_class_name": "UNet1DModel"}, "is a UNet1DModel; .* DiTTransformer2DModel"),
    ({"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
    ({"time_embedding_type": "fourier"}, "time_embedding_type 'fourier'"),
    ({"sample_size": None}, "has sample_size None"),
    ({"sample_size": 10**9}, "has sample_size 1000000000; .* 1 to 4096"),
    ({"sample_size": "large"}, "has sample_size 'large'"),
    ({"in_channels": 4}, "has the shape .* where .* belongs"),
    ({"layers_per_block": 10**9}, "more than 32 blocks or layers"),
    ({"block_out_channels": [8, 16, 16]}, "diffusers cannot build"),
    ({"block_out_channels": [8, 10**12]}, "diffusers cannot build|has the shape"),
    ({"block_out_channels": [8, 24]}, "has the shape .* where .* belongs"),
    ({"layers_per_block": 2}, "missing"),
    ({"num_class_embeds": None}, "'class_embedding.weight' does not belong"),
]


def test_a_config_that_cannot_be_used_is_explained(network: torch.nn.Module, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_bytes())

    def load(changes: dict[str, object]) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        load_unet(tmp_path)

    assert_refused(ExportError, CONFIGS, load)


def test_what_is_no_pixel_unet_is_refused(network: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No UNet at"):
        load_unet(tmp_path / "none")
    with pytest.raises(ExportError, match="holds no diffusers UNet"):
        load_unet(tmp_path)
    with pytest.raises(UsageError, match="--unet-config is for checkpoint files"):
        load_unet(tmp_path, "guided-imagenet64")
    network.save_pretrained(tmp_path / "unet")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "LDMPipeline", "vqvae": ["a", "b"]}))
    for folder in (tmp_path, tmp_path / "unet"):
        with pytest.raises(ExportError, match="latents of its vqvae"):
            load_unet(folder)


SCHEDULES: list[tuple[dict[str, Any], str]] = [
    ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'"),
    ({"prediction_type": "flow"}, "prediction_type 'flow'"),
    ({"num_train_timesteps": 10**9}, "num_train_timesteps"),
    ({"beta_end": 1.5}, "leave \\(0, 1\\)"),
    ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ({"_class_name": "ScoreSdeVeScheduler", "sigma_min": 0.01}, "'ScoreSdeVeScheduler' has no betas"),
    ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "has no betas"),
    ({"beta_start": "low"}, "beta_start and beta_end are 'low' and 0.02"),
    ({"beta_schedule": "scaled_linear", "beta_start": -1.0}, "is not supported|leave"),
    ({"trained_betas": [[0.1], 0.2]}, "trained_betas is not a list of numbers"),
    ({"trained_betas": [0.1]}, "leave"),
]


def test_a_schedule_that_cannot_be_used_is_explained() -> None:
    assert_refused(ExportError, SCHEDULES, lambda config: make_schedule(config, "scheduler_config.json"))


def test_betas_are_diffusers_own_in_double_precision() -> None:
    """diffusers computes them in float32, which is 1e-9 coarser than a schedule's levels can be."""
    for config in (
        {"beta_schedule": "linear"},
        {"beta_schedule": "linear", "num_train_timesteps": 250, "beta_start": 0.001, "beta_end": 0.2},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
    ):
        theirs = diffusers.DDPMScheduler(**config).betas.numpy()
        assert betas(config) == pytest.approx(theirs, rel=1e-6, abs=3e-9), config


def test_the_users_scheduler_stands_in_for_one_that_is_not_supported(network: torch.nn.Module, tmp_path: Path) -> None:
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    own = tmp_path / "pipeline" / "scheduler" / "scheduler_config.json"
    own.write_text(json.dumps(json.loads(own.read_text()) | {"rescale_betas_zero_snr": True}))
    with pytest.raises(ExportError, match="rescale_betas_zero_snr"):
        load_unet(tmp_path / "pipeline")
    diffusers.DDPMScheduler(num_train_timesteps=50).save_pretrained(tmp_path / "mine")
    assert len(load_unet(tmp_path / "pipeline", None, tmp_path / "mine").schedule.alpha_bar) == 50
