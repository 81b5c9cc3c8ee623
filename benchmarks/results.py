"""What a benchmark found: per task, the metrics with their intervals, costs, pictures and protocol."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transframer.benchmarks.json_records import read, strict
from transframer.benchmarks.parts import AutoencoderResult, RolloutResult, Sparsification
from transframer.benchmarks.statistics import Estimate, verdict
from transframer.predictor import Likelihood
from transframer.task import Metric

NEAR_SCORE, NEAR_ERROR = 0.9, 1.1  # of the specialist's


@dataclass(frozen=True)
class MetricResult:
    """One metric of the model beside the trivial answer and the best the codec allows.

    Attributes:
        model: over the held-out samples.
        floor: of the trivial prediction on the same samples.
        difference: model - floor, resampled in pairs.
        ceiling: of the true target, coded and decoded as the model codes it, on the same samples.
        specialist: of the network made for the task, on the same samples; None where none was measured.
        versus: model - specialist, resampled in pairs.
    """

    model: Estimate
    floor: float
    difference: Estimate
    ceiling: float
    specialist: Estimate | None = None
    versus: Estimate | None = None


@dataclass(frozen=True)
class SpecialistResult:
    """The network made for one task that the model was compared with.

    Attributes:
        network: what it is, in words.
        device_seconds: of its training.
        samples_seen: of training, each time that one is seen.
        seed: of its weights and of the world it was trained on.
        seconds_per_frame: wall time of its predictions, at the protocol's batch size and device.
        run_seconds: what the measured run's devices spent on the task; None where nothing says so.
    """

    network: str
    parameters: int
    device_seconds: float
    steps: int
    samples_seen: int
    seed: int
    weights_sha256: str
    seconds_per_frame: float
    run_seconds: float | None = None


@dataclass(frozen=True)
class Picture:
    """One sample, drawn; images are PNG data URIs.

    Attributes:
        index: of the sample in the held-out set.
        chosen_as: "best", "median" or "worst" by the model's score, or "random".
        scores: the headline of this sample alone, of "model", "floor" and "ceiling", and of the "specialist"
            where there is one.
        context: the context frames in the order of the episode.
        times: of each context frame and of the query, as the episode states them; None where it does not.
        uncertainty: of each pixel, over the frames drawn; None where only one was.
        uncertainty_max: the value shown in full colour.
        uncertainty_name: what is shown, and its unit ("" for a plain number).
        specialist: the prediction of the network made for the task; None where none was measured.
    """

    index: int
    chosen_as: str
    scores: dict[str, float]
    context: list[str]
    times: list[float | None]
    truth: str
    model: str
    floor: str
    ceiling: str
    uncertainty: str | None = None
    uncertainty_max: float = 0.0
    uncertainty_name: str = "standard deviation of the frame"
    uncertainty_unit: str = "grey levels"
    specialist: str | None = None


@dataclass(frozen=True)
class TaskResult:
    """All that was measured of one task.

    Attributes:
        metrics: by name; the headline is among them.
        resamples: of the bootstrap.
        bits_per_frame: -log2 p(true coded target), mean over samples; exact, or at most so much where
            `likelihood` is "bound".
        tokens_per_frame: mean number of tokens (triples, codes) of a drawn frame; `target_tokens_per_frame`
            is that of the true coded target.
        seconds_per_frame: wall time of sampling over frames drawn, at the protocol's batch size and device.
        per_sample: the headline of each sample alone, in order; nan where it has nothing to judge.
        definitions: what the task and its metrics are, in its author's words.
        protocol: the stamp; `digest` names it.
        sparsification: how well uncertainty foretells error; None where it was not measured.
        rollout: how drawn videos drift; None where none were drawn.
        autoencoder: of a predictor that has one, on the true targets; None of others.
        specialist: the network made for the task; None where none was measured.
        peak_memory_bytes: of the process so far, and of the accelerator during this task (0 on CPU).
    """

    task: str
    headline: Metric
    metrics: dict[str, MetricResult]
    resamples: int
    bits_per_frame: Estimate
    tokens_per_frame: float
    target_tokens_per_frame: float
    seconds_per_frame: float
    per_sample: list[float]
    definitions: str
    protocol: dict[str, Any]
    digest: str
    peak_memory_bytes: int
    peak_accelerator_bytes: int
    pictures: list[Picture] = field(default_factory=list)
    sparsification: Sparsification | None = None
    rollout: RolloutResult | None = None
    autoencoder: AutoencoderResult | None = None
    specialist: SpecialistResult | None = None

    @property
    def main(self) -> MetricResult:
        """The headline metric."""
        return self.metrics[self.headline.name]

    @property
    def verdict(self) -> str:
        """ "beats", "ties" or "below" the floor, or "undefined"; see `statistics.verdict`."""
        return verdict(self.headline, self.main.model, self.main.floor)

    @property
    def nothing_to_judge(self) -> list[int]:
        """Samples whose own headline is nan; they are still part of every total."""
        return [index for index, value in enumerate(self.per_sample) if math.isnan(value)]

    @property
    def likelihood(self) -> Likelihood:
        """Whether the model's log-probabilities are exact; results from before this was stated are."""
        return self.protocol["model"].get("likelihood", "exact")

    def on_scale(self, value: float) -> float:
        """A headline value on the scale where the floor is 0 and the ceiling is 1; nan without a scale."""
        span = self.main.ceiling - self.main.floor
        return (value - self.main.floor) / span if span and math.isfinite(span) else math.nan

    @property
    def of_specialist(self) -> float:
        """The model's headline over the specialist's: a share of its score, a multiple of its error.

        nan where there is no specialist, where either has nothing to judge, or both are 0 or infinite.
        """
        rival = self.main.specialist
        if rival is None:
            return math.nan
        with np.errstate(divide="ignore", invalid="ignore"):  # inf beside a perfect specialist
            return float(np.float64(self.main.model.value) / np.float64(rival.value))

    @property
    def near_specialist(self) -> bool:
        """Whether the model has 90 % of the specialist's score or more; of an error, 1.1 times it or less."""
        if self.headline.higher_is_better:
            return self.of_specialist >= NEAR_SCORE
        return self.of_specialist <= NEAR_ERROR

    @property
    def against_specialist(self) -> str:
        """ "beats", "ties" or "below" the specialist, by the interval of the paired difference.

        "undefined" where there is none.
        """
        versus = self.main.versus
        return "undefined" if versus is None else verdict(self.headline, versus, 0.0)

    def to_json(self, *, pictures: bool = True) -> dict[str, Any]:
        """As JSON values; numbers that JSON lacks are the strings "nan", "inf" and "-inf"."""
        record = dataclasses.asdict(self)
        if not pictures:
            del record["pictures"]
            if record["rollout"]:
                del record["rollout"]["strip"]
        return strict({**record, "verdict": self.verdict, "nothing_to_judge": self.nothing_to_judge})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TaskResult:
        """The inverse of `to_json`; parts that older results lack are None.

        Raises:
            KeyError, TypeError, ValueError: it was not written by `to_json`.
        """
        return read(cls, record)
