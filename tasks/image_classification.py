"""The class of an image: the target is a grey frame with one lit block, whose place is the class."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from transframer.data.formats.atomic import write_json
from transframer.data.world import IMAGE_CLASSES
from transframer.errors import ConfigError, DataError
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.task import Clip, Metric, Sample, Task
from transframer.tasks.drawing import draw_lines

_GREY, _LIT = 128, 255
_BINS = 15
_LEAST_PROBABILITY = 1e-4


class ClassificationSample(TypedDict):
    """One image, and the id of its class."""

    images: UInt8[Tensor, "1 3 h w"]
    label: NotRequired[int]


@dataclass(frozen=True)
class ClassificationScore:
    """Of one image: whether the class was first and among the first five, what was claimed, and nats."""

    top1: bool
    top5: bool
    confidence: float
    nll: float


@dataclass(frozen=True)
class ImageClassification(Task[Tensor, ClassificationScore]):
    """Image classification. A prediction is a float vector of a probability per class.

    All of the target but one 8x8 block is mid-grey, whose coefficients are all zero: the target is one
    triple (luma DC, position, value), the position being the class, and the stop. So one pass of the model
    gives the exact posterior over classes. A frame holds as many classes as whole blocks: 64 at 64 px.

    Attributes:
        classes: the classes' names; ids are places in it.
        quality: JPEG quality of the target; the coarser, the smaller the one value.
    """

    name: ClassVar[str] = "image_classification"
    sample_type: ClassVar[type] = ClassificationSample
    headline: ClassVar[Metric] = Metric("top1", higher_is_better=True)
    round_trip_bound: ClassVar[float] = 1.0
    clip: Clip = field(default=Clip(main_object=True))
    classes: tuple[str, ...] = IMAGE_CLASSES
    quality: int = 10

    def format(self, sample: Sample) -> Episode:
        """The image as context, the lit block as the target.

        Raises:
            ConfigError: the frame has fewer blocks than there are classes.
            DataError: a label that is no class.
        """
        image = sample["images"][0]
        query = Annotation("class", codec=CodecSettings(self.quality))
        episode = Episode(self.name, (Frame(image),), query)
        self._check_capacity(episode.size)
        if "label" not in sample:
            return episode
        return replace(episode, target=self._lit(self._label(sample), episode))

    def _check_capacity(self, size: tuple[int, int]) -> None:
        blocks = (size[0] // 8) * (size[1] // 8)
        if blocks < len(self.classes):
            raise ConfigError(
                f"{len(self.classes)} classes in a frame of {size[0]} x {size[1]} pixels",
                field="classes",
                expected=f"at most {blocks}, one per 8x8 block",
                next_step="use larger frames",
            )

    def _label(self, sample: Sample) -> int:
        if "label" not in sample:
            raise DataError("the sample has no class", field="label")
        if not 0 <= sample["label"] < len(self.classes):
            raise DataError(
                f"class {sample['label']}", field="label", expected=f"0 to {len(self.classes) - 1}"
            )
        return int(sample["label"])

    def candidates(self, episode: Episode) -> list[Frame]:
        """The target frame of every class, in order."""
        return [self._lit(label, episode) for label in range(len(self.classes))]

    def from_posterior(self, probability: Float[Tensor, " k"], episode: Episode) -> Float[Tensor, " k"]:
        """The probabilities themselves."""
        return probability

    def _lit(self, label: int, episode: Episode) -> Frame:
        """The frame whose block number `label`, in raster order, is lit."""
        height, width = episode.size
        y, x = divmod(label, width // 8)
        image = torch.full((3, height, width), _GREY, dtype=torch.uint8)
        image[:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = _LIT
        return Frame(image, episode.query)

    def decode(self, frame: Frame, episode: Episode) -> Float[Tensor, " k"]:
        """Light above grey in each class's block, as shares; alike for all where there is none.

        A model's frame may light several blocks, or none; the mean of many frames gives the posterior.
        """
        blocks = F.avg_pool2d(frame.image.float().mean(0, keepdim=True), 8).flatten()  # whole blocks only
        light = (blocks[: len(self.classes)] - _GREY).clamp(min=0).round()
        light = light if light.any() else torch.ones_like(light)
        return light / light.sum()

    def truth(self, sample: Sample) -> Float[Tensor, " k"]:
        """One for the true class, zero for the others."""
        return F.one_hot(torch.tensor(self._label(sample)), len(self.classes)).float()

    def combine(self, predictions: Sequence[Tensor]) -> Float[Tensor, " k"]:
        """The mean probabilities."""
        return torch.stack(list(predictions)).mean(0)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """How frequent each class is, whatever the image."""
        frequencies = torch.stack([self.truth(sample) for sample in samples]).mean(0)
        return lambda episode: frequencies

    def score(self, prediction: Tensor, sample: Sample) -> ClassificationScore:
        """Compares with the true class; a class given no probability is not among the first five."""
        label = self._label(sample)
        order = prediction.argsort(descending=True, stable=True)
        rank, probability = order.tolist().index(label), prediction[label].item()
        return ClassificationScore(
            top1=rank == 0,
            top5=rank < 5 and probability > 0,
            confidence=prediction.max().item(),
            nll=-math.log(max(probability, _LEAST_PROBABILITY)),
        )

    def summarise(self, scores: Sequence[ClassificationScore]) -> dict[str, float]:
        """`top1`, `top5` (shares); `ece`; `nll` (nats), probabilities below 1e-4 taken as 1e-4.

        `ece` is the mean gap between confidence and accuracy over 15 equal bins of confidence, weighted by
        their sizes (Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3).
        """
        if not scores:
            return dict.fromkeys(("top1", "top5", "ece", "nll"), math.nan)
        table = torch.tensor([(s.top1, s.top5, s.confidence, s.nll) for s in scores], dtype=torch.float64)
        top1, top5, confidence, nll = table.unbind(1)
        bins = (confidence * _BINS).ceil().long().clamp(1, _BINS) - 1  # upper ends belong to their bins
        gaps = torch.zeros(_BINS, dtype=torch.float64).index_add(0, bins, confidence - top1).abs()
        return {
            "top1": top1.mean().item(),
            "top5": top5.mean().item(),
            "ece": gaps.sum().item() / len(scores),
            "nll": nll.mean().item(),
        }

    def draw(self, sample: Sample, prediction: Tensor) -> UInt8[Tensor, "3 h w"]:
        """The image with its three most probable classes."""
        return draw_lines(
            sample["images"][0], [f"{p:.0%} {name}" for name, p in self._best(prediction, 3) if p > 0]
        )

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves the five most probable classes as JSON, best first."""
        path = stem.parent / f"{stem.name}.json"
        best = [
            {"class": name, "id": self.classes.index(name), "probability": round(probability, 6)}
            for name, probability in self._best(prediction, 5)
        ]
        write_json(path, best, indent=2)
        return [path]

    def _best(self, prediction: Tensor, count: int) -> list[tuple[str, float]]:
        order = prediction.argsort(descending=True, stable=True)[:count].tolist()
        return [(self.classes[k], prediction[k].item()) for k in order]
