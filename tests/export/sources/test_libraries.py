"""Libraries that are installed and cannot be imported: nothing else fails with them, and they are named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from small_models import UNET

PROGRAM = """
import sys
from pathlib import Path
from diffood.errors import ExportError
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.unets.load import load_unet
from diffood.export.sources.libraries import import_diffusers
print(load_unet(Path(sys.argv[1])).origin)
for kind in ("torchvision", "timm"):
    try:
        load_classifier(ClassifierSource(f"{kind}:resnet18"), 28, 28)
    except ExportError as error:
        print(error)
try:
    import_diffusers("UNet3000Model")
except ExportError as error:
    print(error)
"""


@pytest.mark.slow  # imports torch, diffusers and transformers once more
def test_a_torchvision_of_another_torch_is_done_without(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    # What torchvision 0.28 does as it is imported, where its own library does not fit torch's.
    (package / "__init__.py").write_text("import torch\ntorch.library.register_fake('torchvision::nms')(print)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(UNET)], capture_output=True, text=True, check=False, timeout=240,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    unet, torchvision, timm, absent = done.stdout.splitlines()
    assert unet == "diffusers UNet2DModel unet"
    for line in (torchvision, timm):
        assert line.startswith("torchvision is installed but cannot be imported with torch 2.")
        assert "operator torchvision::nms does not exist): install the release that goes with it" in line
    assert absent.startswith("diffusers is installed but cannot be imported")
