"""Draws the training curves of the model card: python -m research.draw_curves."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from diffood.zoo import FOLDER

TRAINING = Path(__file__).parent / "training"  # what the training scripts wrote beside the weights


def draw(output: Path) -> None:
    """Read training/classifier.json and training/unet.jsonl and write the picture."""
    epochs = json.loads((TRAINING / "classifier.json").read_text())["curve"]
    steps = [json.loads(line) for line in (TRAINING / "unet.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([point["epoch"] for point in epochs], [point["loss"] for point in epochs], color="#0072B2", marker="o")
    left.set(title="classifier", xlabel="epoch", ylabel="training cross-entropy")
    right.plot([point["step"] for point in steps], [point["loss"] for point in steps], color="#D55E00")
    right.set(title="UNet", xlabel="step", ylabel="mean squared error of epsilon", ylim=(0.03, 0.1))
    right.locator_params(axis="x", nbins=5)
    figure.savefig(output, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    draw(FOLDER / "curves.png")
