"""Draws the training curves of the model card: python -m research.draw_curves."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from diffood.report.charts.style import WIDTH, Theme, save_chart
from diffood.zoo import FOLDER

TRAINING = Path(__file__).parent / "training"  # what the training scripts wrote


def draw(output: Path) -> None:
    """Read training/classifier.json and training/unet.jsonl and write the picture."""
    epochs = json.loads((TRAINING / "classifier.json").read_text())["curve"]
    steps = [json.loads(line) for line in (TRAINING / "unet.jsonl").read_text().splitlines()]

    def plot(figure: Figure, theme: Theme) -> None:
        left, right = figure.subplots(1, 2)
        losses = [point["loss"] for point in epochs]
        left.plot([point["epoch"] for point in epochs], losses, color=theme.ind, marker="o")
        left.set(title="classifier", xlabel="epoch", ylabel="training cross-entropy")
        right.plot([point["step"] for point in steps], [point["loss"] for point in steps], color=theme.ood)
        right.set(title="UNet", xlabel="step", ylabel="mean squared error of epsilon", ylim=(0.03, 0.1))
        right.locator_params(axis="x", nbins=5)

    save_chart(plot, (WIDTH, 2.8), output)


if __name__ == "__main__":
    draw(FOLDER / "curves.png")
