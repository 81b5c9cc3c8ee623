"""Objects and their pixels: the target is grey, with each object in a colour of its class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from transframer.data.formats.atomic import write_json
from transframer.data.world import OBJECT_CLASSES
from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.task import Metric, Sample, Task
from transframer.tasks.instance_colours import InstanceColours
from transframer.tasks.instance_masks import Instances, mean_instances, merge, resize_instances
from transframer.tasks.instance_output import coco_results, draw_instances, save_numbers
from transframer.tasks.instance_scores import InstanceScore, instance_metrics, score_instances


class InstanceSample(TypedDict):
    """One image, the number of the object at each pixel (1 to k, 0 for none), and each object's class."""

    images: UInt8[Tensor, "1 3 h w"]
    instances: NotRequired[Int[Tensor, "h w"]]
    instance_labels: NotRequired[Int[Tensor, " k"]]


@dataclass(frozen=True)
class InstanceSegmentation(Task[Instances, InstanceScore]):
    """Instance segmentation. A prediction is an `Instances`; scores tell how many samples contain an object.

    A class has several colours, so that objects of one class that are close to each other differ: see
    `instance_colours`. What has one colour and is close together is one object.

    Attributes:
        classes: the classes' names; ids are places in it.
        quality: JPEG quality of the target; None for the one that suits the number of classes.
        gap_px: how close is close.
        min_share: smaller objects, as a share of the image, are taken for noise.
    """

    name: ClassVar[str] = "instance_segmentation"
    sample_type: ClassVar[type] = InstanceSample
    headline: ClassVar[Metric] = Metric("ap", higher_is_better=True)
    round_trip_bound: ClassVar[float] = 0.85
    classes: tuple[str, ...] = OBJECT_CLASSES
    quality: int | None = None
    gap_px: int = 8
    min_share: float = 0.002

    @property
    def _colours(self) -> InstanceColours:
        return InstanceColours(len(self.classes), self.gap_px)

    def format(self, sample: Sample) -> Episode:
        """The image as context, the coloured objects as the target."""
        quality = self._colours.quality if self.quality is None else self.quality
        query = Annotation("instances", codec=CodecSettings(quality, "4:4:4"))
        target = None
        if "instances" in sample:
            true = self.truth(sample)
            target = Frame(self._colours.write(true.masks, true.labels), query)
        return Episode(self.name, (Frame(sample["images"][0]),), query, target)

    def decode(self, frame: Frame, episode: Episode) -> Instances:
        """The objects in the frame, with scores of 1."""
        height, width = episode.size
        masks, labels = self._colours.read(frame.image, self.min_share * height * width)
        return Instances(masks, labels, torch.ones(len(labels)))

    def truth(self, sample: Sample) -> Instances:
        """The true objects, with scores of 1."""
        if "instances" not in sample or "instance_labels" not in sample:
            raise DataError("the sample has no true objects", field="instances, instance_labels")
        instances, labels = sample["instances"].long(), sample["instance_labels"].long()
        for values, name, last in (
            (instances, "instances", len(labels)),
            (labels, "instance_labels", len(self.classes) - 1),
        ):
            if ((values < 0) | (values > last)).any():
                raise DataError(f"{values.unique().tolist()}", field=name, expected=f"0 to {last}")
        masks = instances == torch.arange(1, len(labels) + 1)[:, None, None]
        return Instances(masks, labels, torch.ones(len(labels)))

    def combine(self, predictions: Sequence[Instances]) -> Instances:
        """Objects that agree are averaged; a score is the share of the predictions that contain one."""
        return merge(predictions)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Instances]:
        """One object of each class, at the pixels that hold it most often, as many as it covers on average;
        its score is the share of images with one."""
        fitted = mean_instances(list(map(self.truth, samples)), len(self.classes))
        return lambda episode: resize_instances(fitted, episode.size)

    def score(self, prediction: Instances, sample: Sample) -> InstanceScore:
        """Which objects match which true ones, by class and IoU threshold, as COCOeval has it."""
        return score_instances(prediction, self.truth(sample), len(self.classes))

    def summarise(self, scores: Sequence[InstanceScore]) -> dict[str, float]:
        """COCO's `ap` (mean over IoU 0.50 to 0.95), `ap50`, `ap75` and `ar` of masks, and `best_iou`, the
        mean IoU of true objects and the best ones found of their classes."""
        return instance_metrics(scores, len(self.classes))

    def draw(self, sample: Sample, prediction: Instances) -> UInt8[Tensor, "3 h w"]:
        """The image with its objects in colours, their classes and, where below 1, scores."""
        return draw_instances(sample["images"][0], prediction, self.classes)

    def write(self, prediction: Instances, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves masks as COCO results JSON (run-length coded), with the classes' names, and a PNG of the
        objects' numbers, from 1 in the order of the JSON."""
        path, png = (stem.parent / (stem.name + suffix) for suffix in (".json", ".png"))
        found = resize_instances(prediction, size)
        write_json(path, coco_results(found, self.classes), indent=None)
        save_numbers(png, found)
        return [path, png]
