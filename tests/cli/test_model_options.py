"""Options that name the torch models: the same for export and bench, and each reaches what loads the models."""

import inspect
from dataclasses import fields, replace
from pathlib import Path

import pytest

from diffood.cli.bench import bench
from diffood.cli.export import export
from diffood.cli.options.models import ModelOptions
from diffood.cli.options.parsers import image_size, numbers
from diffood.errors import UsageError
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources

GIVEN = ModelOptions(
    unet=Path("unet.pt"),
    unet_config="guided-imagenet64",
    scheduler=Path("scheduler"),
    classifier="timm:resnet18",
    classifier_weights=Path("net.safetensors"),
    download=True,
    logits_output="scores",
    features_output="pooled",
    input_size=image_size("224X160"),
    mean=numbers("0.5,0.25,0.125"),
    std=numbers("0.2"),
)


def test_every_option_reaches_what_loads_the_models() -> None:
    classifier = ClassifierSource(
        "timm:resnet18",
        Path("net.safetensors"),
        Preprocessing((224, 160), (0.5, 0.25, 0.125), (0.2,)),
        download=True,
        logits="scores",
        features="pooled",
    )
    assert GIVEN.read() == ModelSources(Path("unet.pt"), classifier, "guided-imagenet64", Path("scheduler"))
    assert ModelOptions().read() is None
    assert image_size("224") == image_size("224x224") == (224, 224)


def test_export_and_bench_take_the_same_ones() -> None:
    for verb in (export, bench):
        taken = inspect.signature(verb).parameters
        assert all(taken[field.name].default == field.default for field in fields(ModelOptions))


def test_a_unet_without_a_classifier_and_its_options_without_a_unet_are_explained() -> None:
    with pytest.raises(UsageError, match="--classifier is missing: give it alone, or with --unet"):
        replace(GIVEN, classifier=None).read()
    with pytest.raises(UsageError, match="--unet-config and --scheduler are about a UNet: add --unet"):
        replace(GIVEN, unet=None).read()
    alone = replace(GIVEN, unet=None, unet_config=None, scheduler=None).read()
    assert alone is not None
    assert alone.unet is None
