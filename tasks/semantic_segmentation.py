"""The class of every pixel of an image: the target is the mask in a palette chosen for the codec."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.data.formats.images import resize_nearest
from transframer.data.world import SEGMENTATION_CLASSES
from transframer.errors import DataError
from transframer.frames import Annotation, Episode, Estimate, Frame
from transframer.task import Clip, Metric, Sample, Task
from transframer.tasks.class_palette import colour_mask, mean_iou, palette_codec, read_mask
from transframer.tasks.drawing import class_colours, draw_mask
from transframer.tasks.uncertainty import resize_map, vote_entropy

IGNORED = 255


class SegmentationSample(TypedDict):
    """One image, and the class id of each of its pixels, 255 where not labelled."""

    images: UInt8[Tensor, "1 3 h w"]
    mask: NotRequired[Int[Tensor, "h w"]]


@dataclass(frozen=True)
class SemanticSegmentation(Task[Tensor, Tensor]):
    """Semantic segmentation. A prediction is a mask h x w of class ids; a score is a confusion matrix.

    Up to 8 classes are greys, coded coarsely; up to 255 are colours, coded finely at many more tokens.
    Pixels that are not labelled take the class of the nearest that is, and are never judged.

    Attributes:
        classes: the classes' names; ids are places in it.
        quality: JPEG quality of the target; None for the one that suits the number of classes.
    """

    name: ClassVar[str] = "semantic_segmentation"
    sample_type: ClassVar[type] = SegmentationSample
    headline: ClassVar[Metric] = Metric("miou", higher_is_better=True)
    round_trip_bound: ClassVar[float] = 0.95
    estimate: ClassVar[Estimate] = "mean"
    uncertainty_metric: ClassVar[Metric] = Metric("entropy of the votes", False, "nats")
    error_metric: ClassVar[Metric] = Metric("share of wrong pixels", False)
    clip: Clip = field(default=Clip())
    classes: tuple[str, ...] = SEGMENTATION_CLASSES
    quality: int | None = None

    def format(self, sample: Sample) -> Episode:
        """The image as context, the coloured mask as the target.

        Raises:
            DataError: an id that is neither a class nor 255.
        """
        codec = palette_codec(len(self.classes))
        if self.quality is not None:
            codec = replace(codec, quality=self.quality)
        query = Annotation("segmentation", codec=codec)
        target = None
        if "mask" in sample:
            mask = _labelled(self.truth(sample), default=min(1, len(self.classes) - 1))
            target = Frame(colour_mask(mask, len(self.classes)), query)
        return Episode(self.name, (Frame(sample["images"][0]),), query, target)

    def decode(self, frame: Frame, episode: Episode) -> Int[Tensor, "h w"]:
        """The mask read off the frame, robust to ringing (see `read_mask`)."""
        return read_mask(frame.image, len(self.classes))

    def truth(self, sample: Sample) -> Int[Tensor, "h w"]:
        """The true mask, 255 where not labelled."""
        if "mask" not in sample:
            raise DataError("the sample has no true mask", field="mask")
        mask = sample["mask"].long()
        wrong = mask[((mask < 0) | (mask >= len(self.classes))) & (mask != IGNORED)]
        if len(wrong):
            raise DataError(
                f"class {int(wrong[0])}",
                field="mask",
                expected=f"0 to {len(self.classes) - 1}, or {IGNORED} where not labelled",
            )
        return mask

    def combine(self, predictions: Sequence[Tensor]) -> Int[Tensor, "h w"]:
        """The class that most predictions give a pixel; of equally many, the lowest id."""
        return sum(F.one_hot(mask, len(self.classes)) for mask in predictions).argmax(-1)  # type: ignore[union-attr]

    def uncertainty(
        self, predictions: Sequence[Tensor], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "h w"]:
        """The entropy of the classes that the predictions vote for, in nats."""
        return resize_map(vote_entropy(predictions, len(self.classes)), size)

    def pixel_error(self, prediction: Tensor, sample: Sample) -> Float[Tensor, "h w"]:
        """1 where the class is wrong, 0 where it is right, nan where not labelled."""
        true = self.truth(sample)
        return (prediction != true).float().where(true != IGNORED, torch.nan)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Tensor]:
        """The class that is most frequent at each pixel."""
        size = self.truth(samples[0]).shape
        votes = torch.zeros(*size, len(self.classes), dtype=torch.int64)
        for mask in map(self.truth, samples):
            mask = resize_nearest(mask, (size[0], size[1]))
            votes += (
                F.one_hot(mask.where(mask != IGNORED, 0), len(self.classes)) * (mask != IGNORED)[..., None]
            )
        return lambda episode: resize_nearest(votes.argmax(-1), episode.size)

    def score(self, prediction: Tensor, sample: Sample) -> Int[Tensor, "k k"]:
        """Pixels by true class (rows) and predicted class (columns)."""
        true, classes = self.truth(sample), len(self.classes)
        judged = true != IGNORED
        pairs = true[judged] * classes + prediction[judged]
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def summarise(self, scores: Sequence[Tensor]) -> dict[str, float]:
        """Over all pixels: `miou`, `pixel_accuracy`, and `iou/<class>`; see `mean_iou` for absent classes."""
        classes = len(self.classes)
        confusion = torch.stack(list(scores)).sum(0) if scores else torch.zeros(classes, classes)
        miou, iou = mean_iou(confusion.long())
        pixels = confusion.sum().item()
        return {
            "miou": miou,
            "pixel_accuracy": confusion.trace().item() / pixels if pixels else math.nan,
        } | {f"iou/{name}": value for name, value in zip(self.classes, iou.tolist(), strict=True)}

    def draw(self, sample: Sample, prediction: Tensor) -> UInt8[Tensor, "3 h w"]:
        """The mask in colours over the grey image, black where not labelled."""
        return draw_mask(sample["images"][0], prediction, len(self.classes))

    def write(self, prediction: Tensor, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves a palette PNG whose pixels are class ids."""
        path = stem.parent / f"{stem.name}.png"
        picture = Image.fromarray(resize_nearest(prediction, size).numpy().astype(np.uint8), mode="P")
        picture.putpalette(class_colours(len(self.classes)).flatten().tolist())
        with whole_file(path) as temporary:
            picture.save(temporary, format="PNG")
        return [path]


def _labelled(mask: Int[Tensor, "h w"], default: int) -> Int[Tensor, "h w"]:
    """The mask with the nearest labelled pixel's class where there is none: no edge, so no tokens."""
    ignored = mask == IGNORED
    if not ignored.any():
        return mask
    if ignored.all():
        return torch.full_like(mask, default)
    y, x = distance_transform_edt(ignored.numpy(), return_distances=False, return_indices=True)
    return mask[torch.from_numpy(y).long(), torch.from_numpy(x).long()]
