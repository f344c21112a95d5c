"""Options that name the torch models: the same for export and bench, and each reaches what loads the models."""

import inspect
from pathlib import Path

import pytest

from diffood.cli.bench import bench
from diffood.cli.export import export
from diffood.cli.options.models import read_sources
from diffood.errors import UsageError
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.model_sources import Sources

GIVEN = {
    "unet": Path("unet.pt"),
    "unet_config": "guided-imagenet64",
    "scheduler": Path("scheduler"),
    "classifier": "timm:resnet18",
    "classifier_weights": Path("net.safetensors"),
    "download": True,
    "logits_output": "scores",
    "features_output": "pooled",
    "input_size": "224X160",
    "mean": "0.5,0.25,0.125",
    "std": "2",
}


def test_every_option_reaches_what_loads_the_models() -> None:
    assert read_sources(**GIVEN) == Sources(  # type: ignore[arg-type]
        unet=Path("unet.pt"),
        classifier="timm:resnet18",
        classifier_weights=Path("net.safetensors"),
        scheduler=Path("scheduler"),
        unet_config="guided-imagenet64",
        preprocessing=Preprocessing((224, 160), (0.5, 0.25, 0.125), (2.0,)),
        download=True,
        logits="scores",
        features="pooled",
    )


def test_export_and_bench_take_the_same_ones() -> None:
    taken = [inspect.signature(verb).parameters for verb in (export, bench)]
    for name in GIVEN:
        assert taken[0][name].annotation is taken[1][name].annotation
        assert taken[0][name].default == taken[1][name].default


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_size": "224"}, "--input-size '224' is not of the form HxW"),
        ({"input_size": "2x2x4"}, "--input-size '2x2x4' is not of the form HxW"),
        ({"mean": "0.5;0.5"}, "--mean '0.5;0.5' is not a list of numbers"),
        ({"std": ""}, "--std '' is not a list of numbers"),
    ],
)
def test_values_of_no_form_are_explained(changes: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_sources(**GIVEN | changes)  # type: ignore[arg-type]
