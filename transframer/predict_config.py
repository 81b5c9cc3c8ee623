"""The settings of `transframer predict`; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from transframer.errors import ConfigError
from transframer.sampling_settings import Sampling, sampling_in_force
from transframer.setting_checks import check_seed, check_size_px
from transframer.weights import GENERALIST


@dataclass(frozen=True)
class PredictConfig:
    """What is predicted, on which images, and how frames are drawn.

    Attributes:
        images: image files (PNG, JPEG, WebP, TIFF, BMP) or folders of them. A task that sees one image
            predicts for each; a task that sees several takes them all together, in this order.
        task: the task's registered name.
        out: the folder for the predictions; made if missing.
        run: a run folder, a folder of weights, or the name of weights that come with the package.
        samples_per_query: frames drawn for each query and combined into one prediction; by default as many as
            the task wants: 32 for object_detection, whose boxes have their scores from them, else 1.
        temperature: of sampling, 0 gives the task's point estimate; by default 0 for one sample per query,
            1 for several.
        top_p: nucleus of each categorical distribution that is sampled from, in (0, 1].
        seed: of sampling.
        times: the time of each image, in any one unit, for tasks that know times.
        query_time: the time asked for, in the same unit.
        cameras: a JSON file with the camera of each image and the one asked for; see docs/data.md.
        size_px: height and width of the frames the model sees, a multiple of 16; by default the run's own.
        batch_size: frames drawn side by side, those of one query counted one by one.
        progressive: also write the frame as it is after each frequency band of its triples.
        device: "auto", "cpu", "cuda", "cuda:1", ...
    """

    images: tuple[str, ...]
    task: str
    out: str
    run: str = GENERALIST
    samples_per_query: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    seed: int = 0
    times: tuple[float, ...] | None = None
    query_time: float | None = None
    cameras: str | None = None
    size_px: int | None = None
    batch_size: int = 16
    device: str = "auto"
    progressive: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(str(self.batch_size), field="batch_size", expected="at least 1")
        check_size_px(self.size_px)
        check_seed(self.seed)
        _ = self.sampling()  # raises where the settings contradict each other

    def sampling(self, draws: int = 1) -> Sampling:
        """What is in force for a task that wants so many draws."""
        return sampling_in_force(self.temperature, self.top_p, self.samples_per_query, draws)
