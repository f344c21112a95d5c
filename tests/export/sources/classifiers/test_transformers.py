"""transformers:DIR: small random models in the layout save_pretrained writes, prepared as their own processors do."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="needs transformers, of the extra `classifiers`")
from diffood.errors import ExportError
from diffood.export.graphs.modules import PrepareImages
from diffood.export.sources.classifiers.classifier import Classifier, load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource

NAMES = {0: "ant", 1: "bee", 2: "cow"}


def vit() -> torch.nn.Module:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=8, id2label=NAMES, label2id={name: index for index, name in NAMES.items()},
        )
    )  # fmt: skip


def resnet() -> torch.nn.Module:
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], num_labels=5)
    )


PROCESSORS = {
    "squashed": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    "cropped": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    "warped": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "shorter side and crop": lambda: transformers.BitImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ),
    "square and crop": lambda: transformers.DeiTImageProcessor(
        size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32}
    ),
    "double normalised": lambda: transformers.EfficientNetImageProcessor(size={"height": 32, "width": 32}, resample=2),
    "offset": lambda: transformers.EfficientNetImageProcessor(
        size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False
    ),
    "not normalised": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
    "shorter side alone": lambda: transformers.ViTImageProcessor(size={"shortest_edge": 32}),
    "a larger shorter side alone": lambda: transformers.LevitImageProcessor(
        size={"shortest_edge": 28}, do_center_crop=False
    ),
    "blue first": lambda: transformers.MobileViTImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ),
    "not resized": lambda: transformers.ViTImageProcessor(do_resize=False),
}


def saved(folder: Path, model: torch.nn.Module, processor: str | None = "squashed") -> Path:
    torch.manual_seed(0)
    model.save_pretrained(folder)
    if processor:
        PROCESSORS[processor]().save_pretrained(folder)
    return folder


def load(folder: Path) -> Classifier:
    return load_classifier(ClassifierSource(f"transformers:{folder}"), 32, 32)


def test_a_folder_gives_what_transformers_gives(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for build, features, count in [
        (vit, "its last linear layer, model.classifier", 16),
        (resnet, "its last linear layer, model.classifier.1", 12),
    ]:
        with subtests.test(build=build):
            torch.manual_seed(0)
            model = build().eval()  # type: ignore[operator]
            found = load(saved(tmp_path, model))
            x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                logits, penultimate = found.model(x)
                assert torch.allclose(logits, model(x).logits, atol=1e-6)
            assert (found.features, tuple(penultimate.shape)) == (count, (2, count))
            assert features in found.features_from
            assert found.class_names is not None
            assert len(found.class_names) == found.classes


def test_a_folder_of_a_network_of_timms_keeps_its_preprocessing_in_its_config(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm, of the extra `classifiers`", exc_type=Exception)
    known = timm.get_pretrained_cfg("resnet10t").to_dict()
    cfg = {key: known[key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std", "num_classes")}
    config = transformers.TimmWrapperConfig.from_dict(
        {"architecture": "resnet10t", "num_classes": 1000, "pretrained_cfg": cfg}
    )
    model = transformers.TimmWrapperForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    found = load(tmp_path)
    height, width = cfg["input_size"][1:]
    assert found.preprocessing.size == (height, width)
    assert found.preprocessing.filter == cfg["interpolation"]
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(found.model(x)[0], model(x).logits, atol=1e-5)


def test_a_model_that_wants_blue_first_gets_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = resnet().eval()
    found = load(saved(tmp_path, model, "blue first"))
    assert "blue first" in found.prepared
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(found.model(x)[0], model(x.flip(1)).logits, atol=1e-6)


def test_shards_and_variants_are_found(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for how, said in [
        ({"max_shard_size": "4KB"}, ()),
        ({"variant": "fp16"}, ("taken from model.fp16.safetensors",)),
        ({"variant": "fp16", "max_shard_size": "4KB"}, ("taken from model.fp16-00001-of-00002.safetensors",)),
    ]:
        with subtests.test(how=how, said=said):
            folder = tmp_path / "-".join(how.values())
            torch.manual_seed(0)
            model = resnet().eval()
            model.save_pretrained(folder, **how)
            PROCESSORS["squashed"]().save_pretrained(folder)
            assert not (folder / "model.safetensors").exists()
            found = load(folder)
            x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                assert torch.allclose(found.model(x)[0], model(x).logits, atol=1e-6)
            assert tuple(note.partition(": ")[2] for note in found.notes) == said


def test_class_names_are_the_configs(tmp_path: Path) -> None:
    assert load(saved(tmp_path, vit())).class_names == ("ant", "bee", "cow")


def test_images_are_prepared_as_the_processor_prepares_them(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for size in [(28, 28), (90, 120)]:
        with subtests.test(size=size):
            for kind in PROCESSORS:
                assert_prepared_alike(load(saved(tmp_path / kind, resnet(), kind)), kind, size)


def assert_prepared_alike(found: Classifier, kind: str, size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    blocks = draw.integers(60, 196, (size[0] // 9, size[1] // 9, 3), np.uint8)
    picture = Image.fromarray(blocks).resize(size[::-1], Image.Resampling.BICUBIC)
    expected = torch.as_tensor(np.asarray(PROCESSORS[kind]()(images=picture, return_tensors="np")["pixel_values"][0]))
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    made = PrepareImages(found, 3, *size)(x)[0]
    made = made.flip(0) if kind == "blue first" else made
    assert made.shape == expected.shape, kind
    levels = (made - expected).abs().amax((1, 2)) * torch.tensor(found.preprocessing.std) * 255
    assert levels.max() < 2.5, kind  # processors round to 8 bits after the resize


def test_a_folder_without_a_processor_says_what_is_missing(tmp_path: Path) -> None:
    found = load(saved(tmp_path, vit(), None))
    assert "no preprocessor_config.json" in found.notes[0]
    assert found.preprocessing.size == (32, 32)


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_a_model_that_is_no_classifier_is_explained(tmp_path: Path) -> None:
    saved(tmp_path, vit())
    change(tmp_path, architectures=["ViTModel"])
    with pytest.raises(ExportError, match="is a ViTModel, not an image classifier"):
        load(tmp_path)


def test_weights_that_are_missing_are_never_left_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path, vit())
    state = load_file(tmp_path / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"holds no weights for classifier\.weight"):
        load(tmp_path)


def test_a_pickle_is_not_taken_for_weights(tmp_path: Path) -> None:
    saved(tmp_path, vit())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"holds no model\.safetensors, and pickles are not opened"):
        load(tmp_path)


def test_code_beside_a_model_is_never_run(tmp_path: Path) -> None:
    saved(tmp_path, vit())
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    change(
        tmp_path, model_type="mine", auto_map={"AutoModelForImageClassification": "mine.Model", "AutoConfig": "mine.C"}
    )
    with pytest.raises(ExportError, match="transformers cannot load"):
        load(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_config_that_is_too_large_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, vit())
    with (tmp_path / "config.json").open("ab") as file:
        file.write(b" " * 2**25)
    with pytest.raises(ExportError, match="a config is smaller"):
        load(tmp_path)
