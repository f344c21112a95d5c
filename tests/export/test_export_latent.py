"""Exporting latent diffusion: the halves of an autoencoder are diffusers' own, and what does not fit is refused."""

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import exported
import latent_models
import numpy as np
import pytest
from engine_building import NEEDS_TENSORRT_RTX, build
from refusals import assert_refused

latent_models.need_export()

import diffusers
import onnx
import torch
from latent_models import kl_autoencoder, latent_unet, save_pipeline, transformer, vq_autoencoder

from diffood.bench.torch_loop import TorchVariant, open_torch_loop
from diffood.errors import ExportError
from diffood.export.graphs.autoencoder import DecodeGraph, EncodeGraph
from diffood.export.int8 import quantize
from diffood.export.int8.qdq import open_session
from diffood.export.int8.states import record_states
from diffood.export.onnx.precision import LIMITS
from diffood.export.onnx.proof import export_onnx, prove_equal, run_torch
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.export.sources.unets.autoencoder import load_autoencoder
from diffood.export.sources.unets.folder import load_folder
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.engines import list_engines
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import Plan

PLAN = Plan(start_times=(10, 21), stride=7, repeats=2, guidance=2.0, schedule="reference")
LABELLED = {
    "sample_size": latent_models.LATENT,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "num_class_embeds": latent_models.CLASSES + 1,
}


def condition_unet(**changes: Any) -> Any:
    """A UNet2DConditionModel that knows class labels and no text."""
    torch.manual_seed(2)
    return diffusers.UNet2DConditionModel(**{**LABELLED, **changes})


def test_a_bundle_says_what_its_latents_are(dit_bundle: Bundle) -> None:
    manifest, lines = dit_bundle.manifest, exported.lines_of(exported.DIT)
    assert manifest.latent is not None
    assert (
        (manifest.latent.channels, manifest.latent.height, manifest.latent.width)
        == (4, 14, 14)
        == manifest.noised_shape
    )
    assert manifest.latent.origin == "diffusers AutoencoderKL vae, latents scaled by 1.5"
    assert (manifest.image.channels, manifest.image.height, manifest.image.width) == (1, 28, 28)
    assert (manifest.unet.labels, manifest.unet.label_count) == ("class+null", 6)
    roles = {"classify", "step_plain", "step_guided", "encode", "decode"}
    for precision in ("fp32", "fp16"):
        assert {graph.role for graph in manifest.graphs if graph.precision == precision} == roles
    assert any("DiTTransformer2DModel" in line and "labels: class+null" in line for line in lines)
    assert any(line.startswith("autoencoder diffusers AutoencoderKL vae") for line in lines)


def test_both_halves_are_what_diffusers_pipelines_do(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case, autoencoder in {
        "shifted": kl_autoencoder,
        "without quant_conv": lambda: kl_autoencoder(
            use_quant_conv=False, use_post_quant_conv=False, shift_factor=None
        ),
        "scaled by channel": lambda: kl_autoencoder(
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.0, 2.0, 0.5, 1.5]
        ),
        "code book": vq_autoencoder,
    }.items():
        with subtests.test(case=case):
            model = autoencoder().eval()
            model.save_pretrained(tmp_path / "vae")
            config = model.config
            channels = config["latent_channels"]
            loaded = load_autoencoder(tmp_path / "vae", (channels, 14, 14))
            x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
            z = torch.randn(3, channels, 14, 14, generator=torch.Generator().manual_seed(1))
            mean = torch.tensor(config.get("latents_mean") or [config.get("shift_factor") or 0.0] * channels)[
                :, None, None
            ]
            std = torch.tensor(config.get("latents_std") or [1.0] * channels)[:, None, None]
            with torch.no_grad():
                encoded = model.encode(x)
                plain = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
                found = EncodeGraph(loaded)(x)
                torch.testing.assert_close(found, (plain - mean) / std * config["scaling_factor"], rtol=1e-5, atol=1e-5)
                back = model.decode(z / config["scaling_factor"] * std + mean).sample
                torch.testing.assert_close(DecodeGraph(loaded)(z), back, rtol=1e-4, atol=1e-4)


def test_a_decoder_with_a_code_book_is_written_as_a_graph_that_equals_torch(tmp_path: Path) -> None:
    vq_autoencoder().eval().save_pretrained(tmp_path / "vae")
    graph = DecodeGraph(load_autoencoder(tmp_path / "vae", (3, 14, 14))).eval()
    inputs = {"z": torch.randn(3, 3, 14, 14, generator=torch.Generator().manual_seed(0))}
    export_onnx(graph, inputs, ("x",), tmp_path / "decode.onnx")
    single = {"z": inputs["z"][:1]}
    proof = prove_equal(run_torch(graph), tmp_path / "decode.onnx", ("x",), iter([inputs, single]), LIMITS["fp32"])
    assert proof.rows == 4


def test_a_code_book_finds_the_nearest_code_in_half_precision_too(tmp_path: Path) -> None:
    model = vq_autoencoder().eval()
    model.save_pretrained(tmp_path / "vae")
    loaded = load_autoencoder(tmp_path / "vae", (3, 14, 14))
    chosen = torch.randint(0, 32, (2, 14, 14), generator=torch.Generator().manual_seed(0))
    z = (loaded.model.quantize.embedding.weight[chosen] * 0.8).permute(0, 3, 1, 2)
    with torch.no_grad():
        exact = DecodeGraph(loaded)(z)
        loaded.model.half()
        halved = DecodeGraph(loaded)(z)
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, exact, rtol=0, atol=0.02 * float(exact.abs().max()))


def test_a_condition_unet_without_text_is_asked_by_label(tmp_path: Path) -> None:
    save_pipeline(tmp_path, unet=condition_unet(), vae=kl_autoencoder())
    unet = load_folder(tmp_path)
    assert (unet.label_count, unet.channels, unet.height, unet.image.height) == (6, 4, 14, 28)
    original = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet").eval()
    z, time = torch.randn(2, 4, 14, 14, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 30.0])
    label = torch.tensor([1, 5])
    with torch.no_grad():
        expected = original(z, time, encoder_hidden_states=None, class_labels=label).sample
        found = unet.model(z, time, class_labels=label, return_dict=False)[0]
        other = unet.model(z, time, class_labels=label.flip(0), return_dict=False)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - other).abs().max() > 1e-4


def test_the_folder_of_the_model_itself_finds_its_autoencoder_too(dit_pipeline: Path) -> None:
    whole, part = load_folder(dit_pipeline), load_folder(dit_pipeline / "transformer")
    assert whole.autoencoder is not None
    assert part.autoencoder is not None
    assert (whole.sha256, whole.autoencoder.sha256) == (part.sha256, part.autoencoder.sha256)


def set_config(part: Path, **changes: Any) -> None:
    path = part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DIT: dict[str, Any] = {"transformer": transformer, "vae": kl_autoencoder}
LDM: dict[str, Any] = {"unet": latent_unet, "vqvae": vq_autoencoder}
CROSS = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
TIMES = {"num_class_embeds": None, "class_embed_type": "timestep"}


MISFITS: list[tuple[tuple[dict[str, Any], tuple[str, dict[str, Any]] | None], str]] = [
    (({"transformer": transformer}, None), "no autoencoder next to it"),
    (({"unet": lambda: condition_unet(**CROSS)}, None), "the embedding of a text"),
    (({"unet": lambda: condition_unet(**TIMES)}, None), "class_embed_type"),
    (({**DIT, "vae": lambda: kl_autoencoder(latent_channels=3)}, None), "latents of 3 channels"),
    (({**DIT, "vae": lambda: kl_autoencoder(out_channels=3)}, None), "1 channels to 3"),
    (({**DIT, "transformer": lambda: transformer(out_channels=6)}, None), "maps 4 to 6 channels"),
    ((DIT, ("vae", {"_class_name": "AutoencoderTiny"})), "AutoencoderTiny"),
    ((DIT, ("vae", {"scaling_factor": 0})), "how latents are scaled"),
    ((DIT, ("vae", {"latents_std": [1, 2]})), "how latents are scaled"),
    ((DIT, ("transformer", {"patch_size": "two"})), "cannot build"),
    ((DIT, ("transformer", {"num_layers": 2})), "and 18 more are missing"),
    ((LDM, ("unet", {"sample_size": None})), "has sample_size None"),
    ((LDM, ("unet", {"sample_size": "large"})), "has sample_size 'large'"),
    ((LDM, ("vqvae", {"norm_type": "spatial"})), "cannot build|not supported"),
]


def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path) -> None:
    places = (tmp_path / str(number) for number in itertools.count())

    def load(case: tuple[dict[str, Any], tuple[str, dict[str, Any]] | None]) -> None:
        parts, damage = case
        place = save_pipeline(next(places), **{name: make() for name, make in parts.items()})
        if damage:
            set_config(place / damage[0], **damage[1])
        load_folder(place)

    assert_refused(ExportError, MISFITS, load)


def test_weights_of_torch_save_are_read_and_none_that_could_run_code(dit_pipeline: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(dit_pipeline, tmp_path / "pipeline"))
    (path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    transformer().save_pretrained(path / "transformer", safe_serialization=False)
    found, expected = (load_folder(folder).model.state_dict() for folder in (path, dit_pipeline))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (path / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(ExportError, match="holds more than tensors"):
        load_folder(path)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["reference", "textbook"])
def test_the_official_loop_in_torch_runs_in_latent_space(
    dit_bundle: Bundle, dit_pipeline: Path, clothes: Any, schedule: str
) -> None:
    plan = PLAN.changed({"schedule": schedule})
    models = ModelSources(dit_pipeline, ClassifierSource(latent_models.classifier_of(dit_pipeline)))
    pixels, latents = clothes[:3, None], dit_bundle.manifest.noised_shape
    noise = make_pool(plan.seed, plan.repeats, pixels[0].size, math.prod(latents)).draw(pixels, latents)
    loop = open_torch_loop(dit_bundle.path, models, plan, 1, TorchVariant(), rows=4)
    with torch.inference_mode():
        found = loop.score(torch.from_numpy(from_pixels(pixels)), torch.from_numpy(noise)).numpy()
    detector = Detector.load(dit_bundle, plan, batch=5, threads=1)
    np.testing.assert_allclose(found, detector.score_pixels(pixels).by_start, rtol=0, atol=1e-4)
    assert loop.run(pixels) == 3 * detector.evaluations


@pytest.mark.slow
def test_another_autoencoder_is_not_the_bundles(dit_bundle: Bundle, dit_pipeline: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(dit_pipeline, tmp_path / "other"))
    kl_autoencoder(scaling_factor=1.5).half().float().save_pretrained(other / "vae")
    models = ModelSources(other, ClassifierSource(latent_models.classifier_of(dit_pipeline)))
    with pytest.raises(ExportError, match="autoencoder's weights"):
        open_torch_loop(dit_bundle.path, models, PLAN, 1, TorchVariant(), rows=4)


@pytest.mark.slow
def test_int8_steps_are_calibrated_on_latents_and_the_classifier_on_images(dit_bundle: Bundle, clothes: Any) -> None:
    plan, pixels = dit_bundle.plan(), clothes[:3, None]
    fed = record_states(dit_bundle, pixels)
    table, x = dit_bundle.tables(plan)[0], from_pixels(pixels)
    z = open_session(onnx.load(dit_bundle.path / "encode.onnx")).run(["z"], {"x": x})[0]
    noise = make_pool(plan.seed, plan.repeats, x[0].size, z[0].size).draw(pixels, z.shape[1:])
    signal, sigma = table.noise_scale
    noised = (signal * z + sigma * noise).reshape(-1, *z.shape[1:])  # by repeat, then image
    for role in ("step_plain", "step_guided"):
        states = fed[role]  # type: ignore[index]
        first = states.inputs["x"][states.inputs["time"] == table.times[0]]
        np.testing.assert_allclose(first, noised, rtol=0, atol=1e-6)
    classified = fed["classify"]
    assert np.array_equal(classified.inputs["x"][classified.groups == "images"], x)
    denoised = classified.inputs["x"][classified.groups == "denoised"]
    assert denoised.shape == (len(noised), *x.shape[1:])
    assert 0 < np.abs(denoised).max() <= 1


@pytest.mark.slow
def test_an_int8_variant_leaves_the_autoencoder_in_fp32(
    dit_bundle: Bundle, clothes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(dit_bundle.path, tmp_path / "bundle"))
    lines: list[str] = []
    monkeypatch.setattr(quantize, "BUDGETS", dict.fromkeys(quantize.BUDGETS, 0.2))  # for networks so small
    quantize.quantize_bundle(path, clothes[:16, None], report=lines.append)
    bundle = open_bundle(path)
    assert {role: bundle.graph(role, "int8").file for role in ("encode", "decode")} == {
        "encode": "encode.onnx",
        "decode": "decode.onnx",
    }
    assert sum("stays fp32 in the int8 variant" in line for line in lines) == 2
    for role in ("classify", "step_plain", "step_guided"):
        assert "int8" in bundle.graph(role, "int8").weights
    detectors = [Detector.load(bundle, PLAN, precision=precision, batch=5, threads=1) for precision in ("fp32", "int8")]
    exact, rounded = (detector.score(clothes[:4]) for detector in detectors)
    np.testing.assert_allclose(exact.score, rounded.score, rtol=0.2)
    assert (exact.score != rounded.score).all()


@pytest.mark.slow
@NEEDS_TENSORRT_RTX
def test_engines_of_a_plan_with_latents_are_built(dit_bundle: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(dit_bundle.path, tmp_path / "bundle"))
    build(path, "sm89", precisions=("fp16",))
    (engine,) = list_engines(open_bundle(path))
    assert len(engine.record.stages) == len(engine.record.plan.stages) + 1
