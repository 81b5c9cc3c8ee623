"""The Task contract: a formatter from samples to episodes, its inverse, and how to judge and show both."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.frames import Episode, Estimate, Frame

Prediction = TypeVar("Prediction")
Score = TypeVar("Score")
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """The name of a metric, whether higher is better, and its unit ("" for a plain number)."""

    name: str
    higher_is_better: bool
    unit: str = ""


@dataclass(frozen=True)
class Clip:
    """What a task asks of a source of labelled video, such as the world.

    Attributes:
        frames: how many frames are rendered, in time order.
        context: the choices of which frames are the context images; the sample's index picks one.
        target: the choices of which frame is the target; empty for tasks whose target is a label. It may be
            a context frame, of which `format` then hides a part (the colours, the sharpness).
            Labels (mask, boxes, depth_m, ...) belong to the first context frame.
        training_context: further choices of context, in the training split alone.
        step_s: seconds between two frames.
        main_object: one object fills much of the picture (for classifying a whole image).
        static: only the camera moves (for view synthesis).
    """

    frames: int = 1
    context: tuple[tuple[int, ...], ...] = ((0,),)
    target: tuple[int, ...] = ()
    step_s: float = 0.1
    main_object: bool = False
    static: bool = False
    training_context: tuple[tuple[int, ...], ...] = ()

    @property
    def asks_for_its_image(self) -> bool:
        """Whether the one image is the target as well; with more frames, a video is asked for."""
        return bool(self.target) and self.frames == 1

    def contexts(self, split: str) -> tuple[tuple[int, ...], ...]:
        """The choices of context in a split."""
        return self.context + self.training_context if split == "train" else self.context


@dataclass(frozen=True)
class Task(abc.ABC, Generic[Prediction, Score]):
    """A vision task as the prediction of an annotated frame. Subclass as a frozen dataclass.

    A subclass sets the class variables below and its own fields, which are its settings. A sample is a
    typed mapping in the units people use. Fields with a common meaning have common names, so that any
    source which knows a field can serve it:

        images        uint8 (n 3 h w)   the context images, in time order
        times         float (n)         seconds of each image; query_time: float
        cameras       list of Camera    one per image; query_camera: Camera
        target        uint8 (3 h w)     the RGB frame asked for
        mask          int64 (h w)       class ids, 255 where not labelled
        instances     int64 (h w)       number of the object, 1 to k, 0 for none; instance_labels: int64 (k)
        label         int               class id of the image
        boxes         float (k 4)       x0 y0 x1 y1 in pixels; box_labels: int64 (k)
        depth_m       float (h w)       metres along the optical axis, 0 where unknown
        normals       float (3 h w)     unit, in camera axes (x right, y down, z forward), 0 where unknown
        flow          float (2 h w)     pixels (x, y), from images[0] to images[1]; flow_valid: bool (h w)

    Attributes:
        name: the registered name.
        sample_type: a TypedDict; its required keys are what `predict` needs, the others are labels.
        headline: the metric by which the task is judged; one of the keys that `summarise` returns.
        context_images: the least and the greatest number of context images.
        round_trip_bound: the worst headline value of the true target after coding and decoding, at the
            task's own settings, over samples of the world.
        estimate: which point estimate of the predicted frame suits the headline: "mean" for a frame with a
            value at every pixel, "mode" for one that holds decisions (a lit cell, boxes), "median" where
            neither suits; see `transframer.sampling.Sampler`.
        draws: how many frames are drawn at temperature 1 and combined into one prediction where nothing else
            is asked for: more than one for a task whose estimate lacks what the headline judges, such as the
            scores of boxes.
        uncertainty_metric: the name and unit of what `uncertainty` gives.
        error_metric: the name and unit of what `pixel_error` gives.
        clip: what the task asks of the world.
    """

    name: ClassVar[str]
    sample_type: ClassVar[type]
    headline: ClassVar[Metric]
    context_images: ClassVar[tuple[int, int]] = (1, 1)
    round_trip_bound: ClassVar[float]
    estimate: ClassVar[Estimate] = "mode"
    draws: ClassVar[int] = 1
    uncertainty_metric: ClassVar[Metric] = Metric("uncertainty", higher_is_better=False)
    error_metric: ClassVar[Metric] = Metric("error", higher_is_better=False)
    clip: Clip = field(default_factory=Clip)

    @abc.abstractmethod
    def format(self, sample: Sample) -> Episode:
        """Writes a sample as an episode; without its label fields, as an episode without a target."""

    @abc.abstractmethod
    def decode(self, frame: Frame, episode: Episode) -> Prediction:
        """Reads the label off a predicted frame; the inverse of `format` up to `round_trip_bound`."""

    def candidates(self, episode: Episode) -> Sequence[Frame]:
        """The target frame of every possible answer, where these are few; none where they are not.

        With candidates the point estimate is not a drawn frame but their exact posterior, one pass for all:
        see `from_posterior`.
        """
        return ()

    def from_posterior(self, probability: Float[Tensor, " k"], episode: Episode) -> Prediction:
        """The prediction that a probability for each candidate amounts to; needed with `candidates`."""
        raise NotImplementedError(f"{type(self).__name__} names candidates but reads no posterior of them")

    @abc.abstractmethod
    def truth(self, sample: Sample) -> Prediction:
        """The sample's own label, in the form of a prediction."""

    @abc.abstractmethod
    def combine(self, predictions: Sequence[Prediction]) -> Prediction:
        """One prediction from several samples of the model: vote, mean or median as suits the task."""

    def uncertainty(
        self, predictions: Sequence[Prediction], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "h w"] | None:
        """How far apart several samples of the model are at each pixel, 0 where they agree.

        None for a task without a value at every pixel. A task that has one also gives `pixel_error`, so that
        the uncertainty can be judged by the errors that it foretells.

        Args:
            size: height and width of the map; lengths in pixels are then in pixels of that size, as those
                that `write` saves are.
        """
        return None

    def pixel_error(self, prediction: Prediction, sample: Sample) -> Float[Tensor, "h w"] | None:
        """The error of each pixel, akin to the headline: 0 at best, nan where it is not judged.

        None for a task without a value at every pixel.
        """
        return None

    @abc.abstractmethod
    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Prediction]:
        """Fits the trivial predictor on training samples; it may look at an episode's context only."""

    @abc.abstractmethod
    def score(self, prediction: Prediction, sample: Sample) -> Score:
        """Sufficient statistics of one prediction, so that any set of them can be summarised."""

    @abc.abstractmethod
    def summarise(self, scores: Sequence[Score]) -> dict[str, float]:
        """All metrics over a set of scores; nan where a metric has nothing to judge."""

    @abc.abstractmethod
    def draw(self, sample: Sample, prediction: Prediction) -> UInt8[Tensor, "3 h w"]:
        """A picture of a prediction (or of the truth) for people."""

    @abc.abstractmethod
    def write(self, prediction: Prediction, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves a prediction in the field's usual file format, resized to `size` (height, width)."""
