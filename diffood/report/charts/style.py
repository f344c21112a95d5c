"""The style that all charts share: colours, sizes, and figures written so that the same figure gives the same bytes."""

from pathlib import Path

from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers; the first is the in-distribution set's.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D5D5D", "#B8A800")
IND_TEXT, OOD_TEXT = "#0063A3", "#B34A00"  # darker, to be read as text on white
QUIET_TEXT = "#59636E"
WIDTH = 8.0  # inches of a chart file
DPI = 150


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure as PNG, the same bytes for the same figure; makes the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
