"""UNets of OpenAI's and DiffOOD's checkpoints: the same outputs as an independent writing of the networks."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from refusals import assert_refused
from safetensors.torch import save_file
from written_networks import DDIM, Draw, OpenAI

from diffood.errors import ExportError, UsageError
from diffood.export.sources.unets.load import load_unet
from diffood.export.sources.unets.presets import PRESETS, load_checkpoint_config

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


def test_a_checkpoint_gives_what_the_published_network_gives(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, (network, size, channels, config) in SMALL.items():
        x, time, labels = inputs(network, size, channels)
        draw = Draw()
        expected = network(draw, x, time, labels)
        torch.save(draw.state, tmp_path / "model.pt")
        save_file(draw.state, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert float(expected.abs().max()) > 0.3, name
        shape = (channels, size, size, labels_of(network))
        for file in ("model.pt", "model.safetensors"):
            with subtests.test(name, file=file), torch.no_grad():
                unet = load_unet(tmp_path / file, str(tmp_path / "config.json"))
                found = unet.model(x, time, class_labels=labels, return_dict=False)[0]
                assert (unet.channels, unet.height, unet.width, unet.label_count) == shape
                assert float((found - expected).abs().max()) < 1e-5


def test_rescaled_timesteps_are_asked_at_a_thousand_steps(tmp_path: Path) -> None:
    network = OpenAI(32, 6, 1, (2,), (1, 2), num_heads=4, use_scale_shift_norm=True)
    draw, x = Draw(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = network(draw, x, torch.tensor([0.75, 500.0]))
    torch.save(draw.state, tmp_path / "model.pt")
    small = {"num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2], "image_size": 8}
    config = {"preset": "improved-cifar10", "attention_resolutions": [4], **small}
    (tmp_path / "config.json").write_text(json.dumps(config))
    unet = load_unet(tmp_path / "model.pt", str(tmp_path / "config.json"))
    assert len(unet.schedule.alpha_bar) == 4000
    with torch.no_grad():
        assert float((unet.model(x, torch.tensor([3.0, 2000.0]))[0] - expected).abs().max()) < 1e-5


# The flags of the repositories' READMEs and scripts/launch.sh, word for word, and how many label rows there are.
PUBLISHED = {
    "guided-imagenet64": "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 "
    "--image_size 64 --learn_sigma True --noise_schedule cosine --num_channels 192 --num_head_channels 64 "
    "--num_res_blocks 3 --resblock_updown True --use_new_attention_order True --use_fp16 True "
    "--use_scale_shift_norm True",
    "guided-imagenet128": "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --image_size 128 "
    "--learn_sigma True --noise_schedule linear --num_channels 256 --num_heads 4 --num_res_blocks 2 "
    "--resblock_updown True --use_fp16 True --use_scale_shift_norm True",
    "guided-imagenet256": "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --image_size 256 "
    "--learn_sigma True --noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2 "
    "--resblock_updown True --use_fp16 True --use_scale_shift_norm True",
    "guided-imagenet512": "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --image_size 512 "
    "--learn_sigma True --noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2 "
    "--resblock_updown True --use_fp16 False --use_scale_shift_norm True",
    "improved-imagenet64": "--image_size 64 --num_channels 192 --num_res_blocks 3 --learn_sigma True --class_cond True "
    "--diffusion_steps 4000 --noise_schedule cosine --rescale_learned_sigmas False --rescale_timesteps False",
    "improved-imagenet64-uncond": "--image_size 64 --num_channels 128 --num_res_blocks 3 --learn_sigma True "
    "--diffusion_steps 4000 --noise_schedule cosine --rescale_timesteps True",
    "improved-cifar10": "--image_size 32 --num_channels 128 --num_res_blocks 3 --learn_sigma True --dropout 0.3 "
    "--diffusion_steps 4000 --noise_schedule cosine --rescale_timesteps True",
    "edm-imagenet64": "--attention_resolutions 32,16,8 --class_cond True --dropout 0.1 --image_size 64 "
    "--num_channels 192 --num_head_channels 64 --num_res_blocks 3 --resblock_updown True --use_fp16 True "
    "--use_scale_shift_norm True --weight_schedule karras --attention_type flash",
    "consistency-imagenet64": "--attention_resolutions 32,16,8 --class_cond True --use_scale_shift_norm True "
    "--dropout 0.0 --image_size 64 --num_channels 192 --num_head_channels 64 --num_res_blocks 3 "
    "--resblock_updown True --use_fp16 True --weight_schedule uniform --attention_type flash",
}
MULTIPLES = {  # script_util.create_model
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
NAMED_SIZES = {  # in the README and the names of the checkpoints, in millions
    "improved-imagenet64": 270,
    "improved-imagenet64-uncond": 120,
    "improved-cifar10": 50,
}


def published_network(name: str) -> OpenAI | DDIM:
    if name == "diffood-ddim":  # config/ddim_cifar10_cond.yml
        return DDIM(128, (1, 2, 2, 2), 2, (16,), num_classes=10)
    if name == "diffood-iddpm":  # config/iddpm_cifar10_cond.yml; its label embedding has one row more
        return OpenAI(128, 6, 3, (2, 4), (1, 2, 2, 2), 10 + 1, num_heads=4, use_scale_shift_norm=True)
    words = PUBLISHED[name].split()
    given = {flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
    size = int(given["image_size"])
    flash = given.get("attention_type") == "flash"
    return OpenAI(
        int(given["num_channels"]),
        6 if given.get("learn_sigma") == "True" else 3,
        int(given["num_res_blocks"]),
        tuple(size // int(word) for word in given.get("attention_resolutions", "16,8").split(",")),
        MULTIPLES[size],
        1000 if given.get("class_cond") == "True" else 0,
        int(given.get("num_heads", 4)),
        int(given.get("num_head_channels", -1)),
        use_scale_shift_norm=given.get("use_scale_shift_norm", "True") == "True",
        resblock_updown=given.get("resblock_updown") == "True",
        use_new_attention_order=flash or given.get("use_new_attention_order") == "True",
        attention_dims=2 if flash else 1,
    )


def without_last_ones(shape: torch.Size) -> list[int]:
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] == 1:
        del sizes[-1]
    return sizes


def test_a_preset_has_the_published_names_and_shapes(subtests: pytest.Subtests) -> None:
    for name in PRESETS:
        with subtests.test(name):
            assert_as_published(name)


def assert_as_published(name: str) -> None:
    """The preset's network has the names, shapes and settings of the published one."""
    network, config = published_network(name), load_checkpoint_config(name, Path("model.pt"))
    draw, levels = Draw("meta"), len(network.ch_mult if isinstance(network, DDIM) else network.channel_mult)
    size = 32 if isinstance(network, DDIM) else 2**levels  # attention of a DDIM depends on the size
    labels = torch.zeros(1, dtype=torch.long, device="meta") if labels_of(network) else None
    network(draw, torch.empty(1, 3, size, size, device="meta"), torch.empty(1, device="meta"), labels)
    rename, model = config.checkpoint_name, config.build(labels_of(network))
    found = {rename(key): without_last_ones(value.shape) for key, value in model.state_dict().items()}
    assert found == {key: without_last_ones(value.shape) for key, value in draw.state.items()}
    if name in NAMED_SIZES:
        count = sum(value.numel() for value in draw.state.values()) / 1e6
        assert count == pytest.approx(NAMED_SIZES[name], rel=0.06)
    if isinstance(network, OpenAI):  # what no shape shows
        assert model.config.use_new_attention_order == network.use_new_attention_order
        each = None if network.num_head_channels == -1 else network.num_head_channels
        assert model.config.num_head_channels == each
        assert each or {model.config.num_heads, model.config.num_heads_upsample or 4} == {4}
        assert {2**level for level in model.config.attention_levels} == set(network.attention_rates)
        assert model.config.rescale_timesteps == ("--rescale_timesteps True" in PUBLISHED.get(name, ""))


def linear(steps: int) -> np.ndarray:
    return np.cumprod(1 - np.linspace(0.1 / steps, 20 / steps, steps))


def cosine(steps: int) -> np.ndarray:
    level = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
    kept = [max(level((t + 1) / steps) / level(t / steps), 0.001) for t in range(steps)]
    return np.cumprod(kept)


SCHEDULES = [
    ("guided-imagenet64", cosine(1000), "epsilon"),
    ("guided-imagenet256", linear(1000), "epsilon"),
    ("improved-imagenet64", cosine(4000), "epsilon"),
    ("diffood-ddim", linear(1000), "epsilon"),
    ("diffood-iddpm", cosine(1000), "epsilon"),
    ("consistency-imagenet64", 1 / (1 + np.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 40) ** 14), "sample"),
]


def test_a_preset_has_the_published_schedule() -> None:
    for name, expected, prediction in SCHEDULES:
        schedule = load_checkpoint_config(name, Path("model.pt")).schedule()
        assert schedule.alpha_bar == pytest.approx(expected, rel=1e-9), name
        assert schedule.prediction == prediction, name
        assert name in schedule.origin


def test_a_linear_schedule_is_scaled_to_its_steps_and_may_predict_the_image(tmp_path: Path) -> None:
    changes = {"preset": "guided-imagenet256", "diffusion_steps": 4000, "predict_xstart": True}
    (tmp_path / "config.json").write_text(json.dumps(changes))
    schedule = load_checkpoint_config(str(tmp_path / "config.json"), Path("model.pt")).schedule()
    assert schedule.alpha_bar == pytest.approx(linear(4000), rel=1e-9)
    assert schedule.prediction == "sample"


IMPOSSIBLE: list[tuple[object, str]] = [
    ({"preset": "imagenet"}, "starts from 'imagenet', which is not a preset"),
    ({"preset": "guided-imagenet256", "num_channels": 100}, "num_channels: .*multiple of 32, got '100'"),
    ({"preset": "guided-imagenet256", "num_channels": 10**9}, "num_channels: .*less than or equal to 4096"),
    ({"preset": "guided-imagenet256", "num_res_blocks": 10**9}, "num_res_blocks: .*less than or equal to 16"),
    ({"preset": "guided-imagenet256", "channel_mult": [1] * 99}, "channel_mult: .*at most 10"),
    ({"preset": "guided-imagenet256", "channel_mult": [0.7]}, "group norms need multiples of 32"),
    ({"preset": "guided-imagenet256", "image_size": 100}, "an image of 100 cannot be halved 5 times"),
    ({"preset": "guided-imagenet256", "num_head_channels": 60}, "1024 channels cannot be split into heads of 60"),
    ({"preset": "guided-imagenet256", "attention": 1}, "attention: Extra inputs are not permitted"),
    ({"layout": "openai"}, "image_size: Field required"),
    ({"layout": "stable"}, "the layout 'stable'; openai and ddim are known"),
    ({"preset": "guided-imagenet256", "layout": ["ddim"]}, "the layout .*ddim"),
    ({"preset": ["guided-imagenet256"]}, "which is not a preset"),
    ({}, "the layout 'None'"),
    ([1], "is not a JSON object but a list"),
]


def test_impossible_hyper_parameters_are_explained(tmp_path: Path) -> None:
    def load(config: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        load_checkpoint_config(str(tmp_path / "config.json"), Path("model.pt"))

    assert_refused(ExportError, IMPOSSIBLE, load)


def test_a_checkpoint_without_a_known_config_names_the_presets(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "model.pt")
    cases = [(spec, r"guided-imagenet256.*FILE\.json") for spec in (None, "imagenet256")]
    assert_refused(UsageError, cases, lambda spec: load_unet(tmp_path / "model.pt", spec))
