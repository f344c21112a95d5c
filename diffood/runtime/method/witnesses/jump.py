"""The paper's score: how far the classifier's answer moves when an image is noised and denoised."""

from diffood.runtime.method.witnesses.definition import WitnessDefinition

JUMP = WitnessDefinition(
    "jump",
    "How far the classifier's answer moves when the image is noised and denoised: the paper's score.",
    lambda evidence, bank: float(evidence.by_start.mean()),
    needs_repeats=True,
    classifies_denoised=True,
)
