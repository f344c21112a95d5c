"""What a run of serve-batch is asked to do. Plain records: each value is checked where it is used."""

from dataclasses import dataclass, field
from pathlib import Path

from diffood.runtime.backends import BackendChoice
from diffood.runtime.certificate import AS_CALIBRATED, ThresholdChoice
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.decoding import DEFAULT_SECONDS
from diffood.runtime.inputs.reading import InputRules
from diffood.runtime.inputs.watch import WatchedFolder
from diffood.runtime.sessions.choice import PrecisionChoice
from diffood.serving.output.base import OutputMode
from diffood.serving.output.layout import DEFAULT_PART_ROWS


@dataclass(frozen=True)
class ScorerRequest:
    """What scores the images, and where it runs.

    Attributes:
        bundle: Folder of a calibrated bundle.
        cluster: Address of a Ray cluster, as in `open_cluster`; None scores in this process.
        backend: "auto" takes the best one the calibration is valid for.
        precision: "auto" takes the fastest that passed `diffood verify`, None the calibrated one.
        batch: Images that the engine works on at once.
        threads: Threads of the engine; 0 for all cores.
        limits: Larger files and images are refused.
        decoders: Processes that read and decode images; 0 uses threads, None chooses by where it runs.
        decode_timeout: Seconds for one image in such a process.
        pictures: Whether to return the denoised picture of each flagged image.
        choice: A threshold in place of the calibrated ones.
    """

    bundle: Path
    cluster: str | None = None
    backend: BackendChoice = "auto"
    precision: PrecisionChoice | None = None
    batch: int = DEFAULT_BATCH
    threads: int = 0
    limits: ImageLimits = DEFAULT_LIMITS
    decoders: int | None = None
    decode_timeout: float = DEFAULT_SECONDS
    pictures: bool = False
    choice: ThresholdChoice = AS_CALIBRATED


@dataclass(frozen=True)
class InputRequest:
    """Where the images come from.

    Attributes:
        names: As `open_inputs` takes them.
        rules: Columns of tables, and which URLs are opened.
        watch: A folder whose files are served as they arrive.
        shuffle: Whether to serve them in an order that does not depend on folders.
    """

    names: tuple[str, ...] = ()
    rules: InputRules = field(default_factory=InputRules)
    watch: WatchedFolder | None = None
    shuffle: bool = False


@dataclass(frozen=True)
class OutputRequest:
    """Where the rows go.

    Attributes:
        path: A file, whose ending names the format, or a folder of parts.
        format_name: Format of the parts of a folder; Parquet if None.
        part_rows: Rows per part.
        mode: What to do with rows that exist.
        save_flagged: Folder for flagged files and their denoised pictures.
        labels: Folder for pictures that people are to label.
        fdr: False discovery rate at which rows are selected, in (0, 1); None for none.
    """

    path: Path
    format_name: str | None = None
    part_rows: int = DEFAULT_PART_ROWS
    mode: OutputMode = "new"
    save_flagged: Path | None = None
    labels: Path | None = None
    fdr: float | None = None


@dataclass(frozen=True)
class ServeRequest:
    """One run of serve-batch.

    Attributes:
        max_reject_rate: Stop when a larger share of at least 100 files is refused.
        metrics_port: Port of Prometheus metrics on this machine; 0 for any free one.
        log: File to which events are appended as JSON Lines.
    """

    scorer: ScorerRequest
    inputs: InputRequest
    output: OutputRequest
    max_reject_rate: float | None = None
    metrics_port: int | None = None
    log: Path | None = None
