"""The settings of a benchmark of a trained run; imports nothing heavy."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from transframer.errors import ConfigError
from transframer.sampling_settings import Sampling, sampling_in_force
from transframer.setting_checks import check_seed, check_size_px
from transframer.weights import GENERALIST, home


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured, on which data, and how frames are drawn.

    Attributes:
        run: a run folder, a folder of weights, or the name of weights that come with the package.
        tasks: names of tasks; empty for those the run was trained on that the data have labels for.
        samples: held-out samples per task; of a data set a random subset, 0 for all of it.
        samples_per_query: frames drawn for each sample and combined into one prediction; by default as many
            as the task wants: 32 for object_detection, whose boxes have their scores from them, else 1.
        temperature: of sampling, 0 gives the task's point estimate; by default 0 for one sample per query,
            1 for several.
        top_p: nucleus of each categorical distribution that is sampled from, in (0, 1].
        seed: of the held-out scenes, of sampling and of the bootstrap.
        batch_size: frames drawn side by side, those of one query counted one by one; episodes scored at once.
        data: "world", the procedural test split; "motorcycle", a real Middlebury stereo pair; or a data set's
            folder, or its id on the Hugging Face hub, whose test part is measured.
        data_format: the format of a data set (docs/data.md lists them); guessed from the folder if not given.
        data_options: further settings of the format, such as the columns of a table.
        split: of a data set: "test", or "validation" for choices that must not look at the test part.
        size_px: height and width of the frames, a multiple of 16; by default the run's own.
        floor_samples: samples on which the trivial predictions are fitted: of the world's training split; or
            of those measured of a data set, since its training part is never loaded.
        rollout_frames: how many frames to draw one after the other for each video, for tasks that predict
            the next frame, whose drift from the true video is then measured; 0 for none.
        rollout_videos: held-out videos that are continued so, at the temperature given, or else at 1.
        rollout_prompt_frames: how many frames of each video are given, 1 for an image; by default as many as
            the task's own context has.
        video_features: a network whose features of the drawn videos are compared with those of the true
            ones (Frechet distance): a TorchScript file, or package.module:function or
            path/to/file.py:function that returns a callable (docs/benchmark.md says what it is given).
        specialists: also train, for each task that has one, a network made for that task alone, on scenes
            of the same world, and score it on the same samples; what is trained is kept beside the run's
            folder.
        specialist_minutes: how long each specialist trains, in minutes of the device (of a CPU: of one
            core's work); by default as long as the run's processes together trained on its task.
        out: folder of the results; by default RUN/benchmark, or RUN/benchmark-NAME for data of that name.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        no_cache: measure again what an earlier benchmark already measured under the same protocol.
    """

    run: Path = Path(GENERALIST)
    tasks: list[str] = field(default_factory=list)
    samples: int = 64
    samples_per_query: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 16
    data: str = "world"
    data_format: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    split: Literal["test", "validation"] = "test"
    size_px: int | None = None
    floor_samples: int = 256
    rollout_frames: int = 0
    rollout_videos: int = 16
    rollout_prompt_frames: int | None = None
    video_features: str | None = None
    specialists: bool = False
    specialist_minutes: float | None = None
    out: Path | None = None
    device: str = "auto"
    no_cache: bool = False

    def __post_init__(self) -> None:
        least = {
            "samples": 1 if self.data in ("world", "motorcycle") else 0,
            "batch_size": 1,
            "floor_samples": 1,
            "rollout_frames": 0,
            "rollout_videos": 2 if self.video_features else 1,
        }
        if self.rollout_prompt_frames is not None:
            least["rollout_prompt_frames"] = 1
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(str(getattr(self, name)), field=name, expected=f"at least {minimum}")
        check_size_px(self.size_px)
        check_seed(self.seed)
        if self.video_features and not self.rollout_frames:
            raise ConfigError(
                "no videos are drawn to take features of",
                field="video_features",
                expected="rollout_frames of at least 1 with it",
                next_step="give --rollout-frames too",
            )
        if self.data == "world":
            self.require_whole("the world, whose test split is measured")
        self._check_specialists()
        _ = self.sampling()  # raises where the settings contradict each other

    def require_whole(self, what: str) -> None:
        """Refuses what says how a data set is to be read, for data that are none.

        Raises:
            ConfigError: a split, a format or options, for `what`.
        """
        for name in ("split", "data_format", "data_options"):
            if (given := getattr(self, name)) not in ("test", None, {}):
                raise ConfigError(
                    f"{given} for {what}", field=name, expected="a data set of your own with it"
                )

    def _check_specialists(self) -> None:
        if self.specialists and self.data != "world":
            raise ConfigError(
                f"specialists beside data {self.data}",
                field="specialists",
                expected="data world, on which specialists are trained",
            )
        if self.specialist_minutes is None:
            return
        if not self.specialists:
            raise ConfigError(
                "no specialist is trained",
                field="specialist_minutes",
                expected="specialists with it",
                next_step="give --specialists too",
            )
        if not self.specialist_minutes > 0:
            raise ConfigError(
                str(self.specialist_minutes), field="specialist_minutes", expected="more than 0 minutes"
            )

    def sampling(self, draws: int = 1) -> Sampling:
        """What is in force for a task that wants so many draws."""
        return sampling_in_force(self.temperature, self.top_p, self.samples_per_query, draws)

    @property
    def rollout_temperature(self) -> float:
        """The temperature of rollouts, which are samples where nothing else is asked for."""
        return 1.0 if self.temperature is None else self.temperature

    @property
    def folder(self) -> Path:
        """Where results, cache and report are written."""
        default = "benchmark" if self.data == "world" else f"benchmark-{Path(self.data).name}"
        return self.out or home(self.run) / default

    @property
    def specialist_folder(self) -> Path:
        """Where specialists are kept: beside the run's folder, since they do not depend on its weights."""
        return home(self.run).parent / "specialists"

    @property
    def command(self) -> str:
        """The command line that asks for this benchmark."""
        words = ["transframer", "benchmark", *([] if self.run == Path(GENERALIST) else [str(self.run)])]
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name == "run" or value in (option.default, [], {}):
                continue
            words.append("--" + option.name.replace("_", "-"))
            if isinstance(value, list):
                words.extend(value)
            elif isinstance(value, dict):
                words.append(json.dumps(value))
            elif value is not True:
                words.append(str(value))
        return shlex.join(words)
