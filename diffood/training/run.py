"""Does what a training is asked: reads images, chooses labels, trains, writes a UNet. Imports torch late."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffood.errors import UsageError
from diffood.export.sources.libraries import require_packages
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.progress import Say, ShowProgress
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.stop import Stop, handle_signals
from diffood.training.images import TrainingImages, choose_shape, read_training_images
from diffood.training.labels import KnownClasses, Labels, choose_labels
from diffood.training.request import TrainingRequest

if TYPE_CHECKING:
    from diffood.training.checkpoint import TrainingIdentity, TrainingProgress
    from diffood.training.loop import Training

CLASSIFIED = 64  # images per call of the classifier


def run_training(request: TrainingRequest, report: Say, show_progress: ShowProgress) -> TrainingImages:
    """Train a UNet, or continue a training that was stopped, and write it to the request's folder.

    Args:
        request: What to train on what.
        report: Gets a line for each thing found or done.
        show_progress: As `diffood.cli.progress.show_progress`.

    Returns:
        The images it was trained on, for what was set aside.

    Raises:
        UsageError: Something asked for is impossible, or the folder holds something else.
        ExportError: The classifier does not fit.
        TrainingError: The training cannot go on.
        MissingExtraError: A library is not installed.

    """
    require_packages("diffood train-unet", "torch", "diffusers", "safetensors")
    from diffood.training.folder import TrainedOn, check_folder, write_card, write_unet
    from diffood.training.loop import BatchSource, Training
    from diffood.training.network import build_unet

    threads = request.threads or usable_cores()
    _prepare_torch(threads)
    continued = check_folder(request.output, overwrite=request.overwrite)
    images = _read_images(request, report, show_progress)
    labels = _choose_labels(request, images, report)
    batches = BatchSource(images, labels, request.images_per_step, request.seed)
    identity = _identify(request, images, labels)
    network = build_unet(request.network, images.shape, labels.count, request.seed)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    report(f"unet        {request.size}: {parameters:,} parameters, {identity.precision} on {identity.device}")
    training = Training(
        network,
        batches,
        identity,
        steps=request.most_steps,
        minutes=request.minutes,
        folder=request.output,
    )
    about = TrainedOn(request, images, labels, len(training.held_out), threads)
    if continued:
        report(f"continued   after step {training.progress.step} of {request.output}")

    def write(done: "Training") -> None:
        write_unet(request.output, done.averaged, done.best, labels)
        write_card(request.output, done.progress, about, parameters)
        _draw(done, request)

    _train(training, write, report, show_progress)
    return images


def _train(training: "Training", write: Callable[["Training"], None], report: Say, show_progress: ShowProgress) -> None:
    from diffood.training.checkpoint import CHECKPOINT
    from diffood.training.folder import PICTURE, why_ended
    from diffood.training.loop import has_stalled

    if not training.progress.step:
        training.save()  # from here on the folder is known as a training's
    folder = training.folder
    if training.progress.step >= training.progress.end:  # it was stopped between its last step and its end
        write(training)
    stop = Stop()
    try:
        total, done = (lambda: training.progress.end), training.progress.step
        with (
            show_progress("training", total, done, lambda: describe_losses(training.progress)) as advance,
            handle_signals(stop),
        ):

            def after_step(steps: int) -> None:
                advance(steps)
                stop.check()  # between two steps, so that the checkpoint is whole

            training.run(after_step, write)
    except KeyboardInterrupt:
        training.save()
        report(f"stopped     at step {training.progress.step}; the same command continues")
        raise
    progress = training.progress
    if progress.stalled:  # else more steps or minutes continue it
        (folder / CHECKPOINT).unlink()
    report(f"trained     {progress.step} steps in {progress.seconds / 60:.1f} minutes: {describe_losses(progress)}")
    report(f"ended       {why_ended(progress, training.minutes)}")
    if not has_stalled(progress.curve):
        report(
            "note        the held-out loss was still falling: the same command with more --steps or --minutes goes on"
        )
    report(f"wrote       {folder}" + (f"; {folder / PICTURE} shows samples" if (folder / PICTURE).exists() else ""))


def describe_losses(progress: "TrainingProgress") -> str:
    """The last held-out loss and the smallest, in words; nothing before the first look."""
    if not progress.curve:
        return ""
    best = min(progress.curve, key=lambda look: look.held_out)
    return f"held-out loss {progress.curve[-1].held_out:.4f}, smallest {best.held_out:.4f} at step {best.step}"


def _read_images(request: TrainingRequest, report: Say, show_progress: ShowProgress) -> TrainingImages:
    items = list_inputs(request.images, request.rules)
    shape, why = choose_shape(items, request.shape, request.limits)
    with show_progress("reading", len(items)) as advance:
        images = read_training_images(items, shape, request.limits, advance)
    report(f"images      {len(images.ids)} of {shape.channels}x{shape.height}x{shape.width} ({why})")
    for note, count in sorted(images.converted.items())[:3]:
        report(f"changed     {count} images: {note}")
    if images.repeated:
        report(f"repeated    {images.repeated} files have the bytes of another and count once")
    return images


def _choose_labels(request: TrainingRequest, images: TrainingImages, report: Say) -> Labels:
    classifier = _load_classifier(request, images, report) if request.classifier else None
    labels = choose_labels(images.ids, request.labels, classifier)
    names = ", ".join(labels.names[:3]) + ("…" if labels.names[3:] else "")
    report(f"labels      {labels.source}" + (f"; {len(labels.names)} classes: {names}" if names else ""))
    if labels.names:
        counts = np.bincount(labels.values, minlength=len(labels.names))[: len(labels.names)]
        if missing := [name for name, count in zip(labels.names, counts, strict=True) if not count]:
            report(f"note        no image of {', '.join(missing[:3])}{'…' if missing[3:] else ''}")
    return labels


def _load_classifier(request: TrainingRequest, images: TrainingImages, report: Say) -> KnownClasses:
    import torch

    from diffood.export.graphs.modules import ClassifyGraph
    from diffood.export.sources.classifiers.classifier import load_classifier
    from diffood.runtime.images.pixels import from_pixels

    assert request.classifier is not None
    shape = images.shape
    classifier = load_classifier(request.classifier, shape.height, shape.width)
    report(f"classifier  {classifier.origin}: {classifier.classes} classes; {classifier.prepared}")
    names = request.class_names or classifier.class_names
    if names and len(names) != classifier.classes:
        raise UsageError(f"{len(names)} class names for a classifier of {classifier.classes} classes; give one each.")
    graph = ClassifyGraph(classifier, shape.channels, shape.height, shape.width).eval()

    def predict(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        parts = [indices[at : at + CLASSIFIED] for at in range(0, len(indices), CLASSIFIED)]
        with torch.no_grad():
            found = [graph(torch.from_numpy(from_pixels(images.pixels[part])))[0].argmax(1) for part in parts]
        return np.asarray(torch.cat(found).numpy(), np.int64)

    return KnownClasses(classifier.classes, names, predict)


def _identify(request: TrainingRequest, images: TrainingImages, labels: Labels) -> "TrainingIdentity":
    import hashlib

    from diffood.training.checkpoint import TrainingIdentity
    from diffood.training.device import choose_device, choose_precision

    device = choose_device(request.device)
    shape = images.shape
    return TrainingIdentity(
        images=images.digest,
        labels=f"{labels.source}, {hashlib.sha256(labels.values.tobytes()).hexdigest()}",
        classes=labels.names,
        shape=(shape.channels, shape.height, shape.width),
        size=request.size,
        batch=request.images_per_step,
        rate=request.network.rate,
        seed=request.seed,
        precision=choose_precision(request.precision, device),
        device=device,
        evaluate_every=request.evaluate_every,
    )


def _draw(training: "Training", request: TrainingRequest) -> None:
    """Write the picture where it is time for one."""
    from diffood.runtime.bundle.durable import write_durably
    from diffood.training.folder import PICTURE
    from diffood.training.loop import noise_levels
    from diffood.training.picture import COLUMNS, draw_picture

    step, every = training.progress.step, request.picture_every
    due = every and (step % every < request.evaluate_every or step == training.progress.end)
    if not due:
        return
    chosen = training.held_out[np.linspace(0, len(training.held_out) - 1, COLUMNS).round().astype(int)]
    batches = training.batches
    known = batches.labels_of(chosen)
    picture = draw_picture(
        training.denoiser(),
        batches.pixels(chosen).numpy(),
        None if known is None else known.numpy(),
        batches.labels.count - 1,
        noise_levels(),
    )
    write_durably(request.output / PICTURE, picture)


def _prepare_torch(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
