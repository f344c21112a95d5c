"""The pass over images: classify, noise, denoise in lanes, classify again; in stages after which a rule may stop it.

If the bundle has an autoencoder, images are encoded first, and their latents are noised, denoised and decoded.

The evidence of an image does not depend on the images it shares the lanes with.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from diffood.runtime.lanes import Lanes, Trajectory
from diffood.runtime.method.noise import content_key, draw_noise, mix
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.schedule import StepTable
from diffood.runtime.method.scoring import Array, jumps
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.registry import classify_denoised
from diffood.runtime.sessions import Classified, Session

Key = TypeVar("Key")
Found = TypeVar("Found")
# What is made of an image after each stage, and whether it goes no further.
JudgeImage = Callable[[Evidence], tuple[Found, bool]]

MOST_WAITING = 4  # batches of images that are not finished, or wait for one that is not; must not fill memory


@dataclass(frozen=True)
class PassConfig:
    """What a pass does with every image.

    Attributes:
        plan: The plan.
        tables: Its step tables, by start time.
        origin_scale: (scale of x, scale of noise) of the image that denoised ones are compared with.
        latent: Whether latents are denoised instead of images.
    """

    plan: Plan
    tables: list[StepTable]
    origin_scale: tuple[float, float]
    latent: bool = False

    @property
    def own_origin(self) -> bool:
        """Whether each repeat is compared with an original of its own, noised at index 0 (the reference schedule)."""
        return self.jumps and self.origin_scale[1] > 0

    @property
    def jumps(self) -> bool:
        """Whether denoised images are classified."""
        return classify_denoised(self.plan.witnesses)


class _Image(Generic[Key, Found]):
    """The state of an image: outputs of a stage arrive in any order until none is missing. z: image or latent."""

    def __init__(
        self, key: Key, x: Array, z: Array, logits: Array, features: Array, origin: Array, config: PassConfig
    ) -> None:
        repeats, starts = config.plan.repeats, len(config.tables)
        self.key, self.x, self.z, self.logits, self.features = key, x, z, logits, features
        self.origin = np.zeros((repeats, len(origin)), np.float32) if config.own_origin else origin[None]
        self.after = np.zeros((repeats, starts, len(origin)), np.float32)
        self.denoised = np.zeros((repeats, starts, *x.shape), np.float32)
        self.repeats = self.missing = 0  # done or under way; outputs that are awaited
        self.found: Found | None = None  # what was made of it after the last stage it reached
        self.begun = self.ended = False

    def evidence(self, config: PassConfig) -> Evidence:
        """What the repeats so far left."""
        done, plan = self.repeats, config.plan
        if config.jumps:
            found = jumps(self.origin[:done], self.after[:done], plan.norm, plan.compare)
        else:
            found = np.full(self.after[:done].shape[:2], np.nan)
        return Evidence(self.x, self.logits, self.features, found, self.denoised[:done])


_Finished = tuple[_Image[Key, Found], int, int | None, Array]  # image, repeat, start (None: the original), x
_Trajectory = Trajectory[tuple[_Image[Key, Found], int, int]]  # image, repeat, start


@dataclass(frozen=True)
class StageResult(Generic[Key, Found]):
    """What the worker thread made of an image after a stage, and what is next for it."""

    image: _Image[Key, Found]
    found: Found | None
    ended: bool
    trajectories: list[_Trajectory[Key, Found]]
    originals: list[_Finished[Key, Found]]


class _Pass(Generic[Key, Found]):
    """The state of one pass. Memory is bounded by the batch: images are pulled when lanes are free, not before.

    Images are judged and noised by a worker thread, while the caller's thread alone calls the engine; a batch of
    images is classified ahead, so that the lanes never wait for their noise.
    """

    def __init__(
        self, session: Session, config: PassConfig, judge: JudgeImage[Found], items: Iterable[tuple[Key, Array]]
    ) -> None:
        self.session, self.config, self.judge, self.items = session, config, judge, iter(items)
        self.lanes: Lanes[tuple[_Image[Key, Found], int, int]] = Lanes(session)
        self.waiting: deque[_Image[Key, Found]] = deque()  # in the order of items
        self.whole: list[_Image[Key, Found]] = []  # images of which no output is missing
        self.stage_results: deque[Future[list[StageResult[Key, Found]]]] = deque()  # images that the worker thread has
        self.noised: deque[_Trajectory[Key, Found]] = deque()
        self.latents: list[_Finished[Key, Found]] = []  # to be decoded, a batch at a time
        self.finished: list[_Finished[Key, Found]] = []  # to be classified, likewise
        self.more = True

    def run(self) -> Iterator[tuple[Key, Found]]:
        with ThreadPoolExecutor(1) as self.worker:
            while self.more or self.waiting:
                starved = not self._fill()
                # whole batches, so that none is padded; a part of one where lanes wait for what it lets go on
                early = starved and bool(self.config.plan.stages or not self.lanes.busy)
                if latents := self._due(self.latents, early=early):
                    self._decode(latents)
                elif finished := self._due(self.finished, early=early):
                    self._classify_finished(finished)
                elif self.lanes.busy:
                    self._receive([(*key, x) for key, x in self.lanes.step()])
                self._hand_over(self.whole)
                self.whole = []
                while self.waiting and self.waiting[0].ended:
                    image = self.waiting.popleft()
                    assert image.found is not None
                    yield image.key, image.found

    def _due(self, rows: list[_Finished[Key, Found]], *, early: bool) -> list[_Finished[Key, Found]]:
        """Take from the front of a list what it is time for: whole batches, or all there is."""
        count = len(rows) if early else len(rows) // self.session.batch * self.session.batch
        taken, rows[:count] = rows[:count], []
        return taken

    def _receive(self, rows: list[_Finished[Key, Found]]) -> None:
        """Take what left the lanes, or noised originals; latents wait for their decoding."""
        if self.config.latent:
            self.latents += rows
        else:
            self._keep(rows)

    def _decode(self, rows: list[_Finished[Key, Found]]) -> None:
        images = self.session.decode(np.stack([z for *_, z in rows]))
        self._keep([(image, repeat, start, x) for (image, repeat, start, _), x in zip(rows, images, strict=True)])

    def _keep(self, rows: list[_Finished[Key, Found]]) -> None:
        for image, repeat, start, unclamped in rows:
            x = np.clip(unclamped, -1, 1)
            if start is not None:
                image.denoised[repeat, start] = x
            if self.config.jumps:
                self.finished.append((image, repeat, start, x))
            else:
                self._count(image)

    def _fill(self) -> bool:
        """Load every free lane; False where there is nothing left to load until more is classified or handed out."""
        while self.lanes.free:
            self._collect(wait=not self.noised)
            if self.noised:
                self.lanes.load(self.noised.popleft())
            elif not self.stage_results and not self._classify_next_images():
                return False
        if not self.noised and not self.stage_results:
            self._classify_next_images()
        return True

    def _collect(self, *, wait: bool) -> None:
        """Take what the worker thread has finished; wait: at least for the next result."""
        while self.stage_results and (wait or self.stage_results[0].done()):
            wait = False
            for done in self.stage_results.popleft().result():
                done.image.found, done.image.ended = done.found, done.ended
                self._receive(done.originals)
                if done.image.begun:  # before new ones, so that few images are on their way
                    self.noised.extendleft(reversed(done.trajectories))
                else:
                    self.noised.extend(done.trajectories)
                done.image.begun = True

    def _hand_over(self, images: list[_Image[Key, Found]]) -> None:
        if images:
            self.stage_results.append(self.worker.submit(lambda: [self._finish_stage(image) for image in images]))

    def _classify_next_images(self) -> bool:
        """Start on a batch of images; False if there are none, or too many wait for an earlier one."""
        if not self.more or len(self.waiting) >= MOST_WAITING * self.session.batch:
            return False
        chunk = list(itertools.islice(self.items, self.session.batch))
        self.more = len(chunk) == self.session.batch
        if not chunk:
            return False
        stacked = np.stack([x for _, x in chunk])
        before = self.session.classify(stacked)
        noised = self.session.encode(stacked) if self.config.latent else [x for _, x in chunk]
        rows = zip(chunk, noised, before.logits, before.features, self._space(before), strict=True)
        images: list[_Image[Key, Found]] = [
            _Image(key, x, z, logits, features, origin, self.config) for (key, x), z, logits, features, origin in rows
        ]
        self.waiting += images
        self._hand_over(images)
        return True

    def _finish_stage(self, image: _Image[Key, Found]) -> StageResult[Key, Found]:
        """Judge an image after a stage, and noise it for the next; run by the worker thread, touches only the image."""
        found, ended = None, False
        if image.repeats or 0 in self.config.plan.stages or not self.config.plan.denoises:
            found, ended = self.judge(image.evidence(self.config))
            ended = ended or image.repeats == self.config.plan.repeats
        return StageResult(image, found, ended, *(([], []) if ended else self._noise_next_stage(image)))

    def _noise_next_stage(
        self, image: _Image[Key, Found]
    ) -> tuple[list[_Trajectory[Key, Found]], list[_Finished[Key, Found]]]:
        plan, done = self.config.plan, image.repeats
        image.repeats = next((stage for stage in plan.stages if stage > done), plan.repeats)
        content, label = content_key(image.x), int(image.logits.argmax())
        trajectories: list[_Trajectory[Key, Found]] = []
        originals: list[_Finished[Key, Found]] = []
        for repeat in range(done, image.repeats):
            noise = draw_noise(content, plan.seed, repeat, image.z.shape)
            if self.config.own_origin:
                originals.append((image, repeat, None, mix(self.config.origin_scale, image.z, noise)))
            for start, table in enumerate(self.config.tables):
                noised = mix(table.noise_scale, image.z, noise)
                trajectories.append(Trajectory((image, repeat, start), noised, table, label, plan.guidance))
        image.missing = (image.repeats - done) * (len(self.config.tables) + self.config.own_origin)
        # the longest first: the last lanes then end nearly together
        return sorted(trajectories, key=lambda trajectory: -len(trajectory.table)), originals

    def _classify_finished(self, rows: list[_Finished[Key, Found]]) -> None:
        outputs = self._space(self.session.classify(np.stack([x for *_, x in rows])))
        for (image, repeat, start, _), output in zip(rows, outputs, strict=True):
            if start is None:
                image.origin[repeat] = output
            else:
                image.after[repeat, start] = output
            self._count(image)

    def _count(self, image: _Image[Key, Found]) -> None:
        image.missing -= 1
        if not image.missing:
            self.whole.append(image)

    def _space(self, outputs: Classified) -> Array:
        return outputs.logits if self.config.plan.space == "logits" else outputs.features


def run_pass(
    session: Session, config: PassConfig, items: Iterable[tuple[Key, Array]], judge: JudgeImage[Found]
) -> Iterator[tuple[Key, Found]]:
    """What `judge` makes of each (key, x float32 [C, H, W] in [-1, 1]), lazily and in order.

    It is called after each of the plan's stages and after the last repeat, and may stop an image there.
    """
    return _Pass(session, config, judge, items).run()
