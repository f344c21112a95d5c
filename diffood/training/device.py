"""Chooses what to train on, and whether bfloat16 helps there."""

import os
from typing import Literal

import torch

from diffood.errors import DeviceError
from diffood.training.request import DeviceChoice, TrainingPrecision


def choose_device(wanted: DeviceChoice) -> Literal["cpu", "cuda"]:
    """A GPU where torch finds one, unless the CPU is asked for. Raises DeviceError where there is none to be had.

    On a GPU, algorithms that give the same result on every run are chosen where torch has them.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DeviceError(
            f"torch {torch.__version__} finds no CUDA device: check the driver and that torch is built for CUDA, or "
            "use --device cpu."
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    return "cuda"


def choose_precision(wanted: TrainingPrecision, device: Literal["cpu", "cuda"]) -> Literal["fp32", "bf16"]:
    """bfloat16 where the device multiplies in it; elsewhere it is emulated, and slower."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch has no public question for it
    return "bf16" if supported() else "fp32"
