"""Objects and their boxes: the target is grey, with one patterned 8x8 block at each object's centre."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from transframer.codec import grid_from_image, grid_size, image_from_grid
from transframer.data.formats.atomic import write_json
from transframer.data.world import OBJECT_CLASSES
from transframer.errors import DataError
from transframer.frames import Annotation, CodecSettings, Episode, Frame
from transframer.task import Clip, Metric, Sample, Task
from transframer.tasks.average_precision import ImageMatches, accumulate_images, match_image
from transframer.tasks.box_lattice import BoxLattice
from transframer.tasks.detections import Detections, merge
from transframer.tasks.drawing import draw_boxes

_SHOWN_SCORE = 0.25  # in pictures; what is written and judged is all


class DetectionSample(TypedDict):
    """One image, its boxes x0 y0 x1 y1 in pixels, and the id of each box's class."""

    images: UInt8[Tensor, "1 3 h w"]
    boxes: NotRequired[Float[Tensor, "n 4"]]
    box_labels: NotRequired[Int[Tensor, " n"]]


@dataclass(frozen=True)
class ObjectDetection(Task[Detections, ImageMatches]):
    """Object detection. A prediction is a `Detections`; its scores tell how far samples agree on a box.

    A box is a point with properties, as in CenterNet (Zhou et al., Objects as Points, 2019): see
    `box_lattice` for how a block of the target holds it. Boxes of any overlap stay apart, at about five
    triples each.

    Attributes:
        classes: the classes' names; ids are places in it.
        quality: JPEG quality of the target; the higher, the finer the lattice of offsets and sizes.
    """

    name: ClassVar[str] = "object_detection"
    sample_type: ClassVar[type] = DetectionSample
    headline: ClassVar[Metric] = Metric("ap", higher_is_better=True)
    round_trip_bound: ClassVar[float] = 0.95
    # A frame holds boxes and no scores: a box's score is how many draws hold it, and how nearly (`merge`).
    draws: ClassVar[int] = 32
    clip: Clip = field(default=Clip())
    classes: tuple[str, ...] = OBJECT_CLASSES
    quality: int = 70

    @property
    def _lattice(self) -> BoxLattice:
        return BoxLattice(len(self.classes), self.quality)

    def format(self, sample: Sample) -> Episode:
        """The image as context, the patterned blocks as the target.

        Raises:
            DataError: boxes that the target cannot hold (see `BoxLattice.write`).
        """
        query = Annotation("boxes", codec=CodecSettings(self.quality))
        episode = Episode(self.name, (Frame(sample["images"][0]),), query)
        if "boxes" not in sample:
            return episode
        true, size = self.truth(sample), episode.size
        grid = self._lattice.write(true.boxes, true.labels, size, grid_size(size))
        return replace(episode, target=Frame(image_from_grid(grid[None], [query.codec], size)[0], query))

    def decode(self, frame: Frame, episode: Episode) -> Detections:
        """The boxes of all blocks whose mean is not grey, with scores of 1."""
        grid = grid_from_image(frame.image[None], [CodecSettings(self.quality)])[0]
        boxes, labels = self._lattice.read(grid, episode.size)
        return Detections(boxes, labels, torch.ones(len(boxes)), episode.size)

    def truth(self, sample: Sample) -> Detections:
        """The true boxes, with scores of 1."""
        if "boxes" not in sample or "box_labels" not in sample:
            raise DataError("the sample has no true boxes", field="boxes, box_labels")
        boxes, (height, width) = sample["boxes"].float(), sample["images"].shape[-2:]
        return Detections(boxes, sample["box_labels"].long(), torch.ones(len(boxes)), (height, width))

    def combine(self, predictions: Sequence[Detections]) -> Detections:
        """Boxes that agree become their median; a score is the overlap that the predictions expect."""
        return merge(predictions)

    def floor(self, samples: Sequence[Sample]) -> Callable[[Episode], Detections]:
        """The mean box of each class, relative to the image; its score is the share of images with one."""
        boxes: dict[int, list[Tensor]] = {}
        images = torch.zeros(len(self.classes))
        for true in map(self.truth, samples):
            scale = _scale(true.size)
            for box, label in zip(true.boxes, true.labels.tolist(), strict=True):
                boxes.setdefault(label, []).append(box / scale)
            images[true.labels.unique()] += 1
        labels = torch.tensor(sorted(boxes), dtype=torch.int64)
        means = [torch.stack(boxes[label]).mean(0) for label in labels.tolist()]
        mean = torch.stack(means) if means else torch.zeros(0, 4)
        share = images[labels] / max(1, len(samples))
        return lambda episode: Detections(mean * _scale(episode.size), labels, share, episode.size)

    def score(self, prediction: Detections, sample: Sample) -> ImageMatches:
        """Which detections match which true boxes, by class and IoU threshold, as COCOeval has it."""
        true = self.truth(sample)
        found = (prediction.boxes, prediction.labels, prediction.scores)
        return match_image(found, (true.boxes, true.labels), len(self.classes))

    def summarise(self, scores: Sequence[ImageMatches]) -> dict[str, float]:
        """COCO's `ap` (mean over IoU 0.50 to 0.95), `ap50`, `ap75`, `ar` (100 detections an image)."""
        return accumulate_images(scores, len(self.classes))

    def draw(self, sample: Sample, prediction: Detections) -> UInt8[Tensor, "3 h w"]:
        """The image with its boxes, their classes and, where below 1, scores; unlikely boxes are left out."""
        shown = prediction.scores >= _SHOWN_SCORE
        labels = prediction.labels[shown]
        captions = [
            self.classes[label] + (f" {score:.2f}" if score < 1 else "")
            for label, score in zip(labels.tolist(), prediction.scores[shown].tolist(), strict=True)
        ]
        image = sample["images"][0]
        return draw_boxes(image, prediction.boxes[shown], labels, captions, len(self.classes))

    def write(self, prediction: Detections, stem: Path, size: tuple[int, int]) -> list[Path]:
        """Saves boxes as COCO results JSON (bbox: x, y, width, height), with the classes' names."""
        path = stem.parent / f"{stem.name}.json"
        boxes = prediction.boxes / _scale(prediction.size) * _scale(size)
        results = [
            {
                "image_id": 0,
                "category_id": label,
                "category": self.classes[label],
                "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
                "score": round(score, 6),
            }
            for (x0, y0, x1, y1), label, score in zip(
                boxes.tolist(), prediction.labels.tolist(), prediction.scores.tolist(), strict=True
            )
        ]
        write_json(path, results, indent=2)
        return [path]


def _scale(size: tuple[int, int]) -> Float[Tensor, "4"]:
    return torch.tensor([size[1], size[0], size[1], size[0]], dtype=torch.float32)
