"""Which tasks have a specialist."""

from __future__ import annotations

from transframer.benchmarks.baselines.specialist import Specialist
from transframer.errors import ConfigError
from transframer.task import Task

_MODULE = "transframer.benchmarks.baselines"
_CLASSES = {  # by name, so that the list needs neither timm nor torchvision
    "semantic_segmentation": "dense_specialists:SegmentationSpecialist",
    "depth_estimation": "dense_specialists:DepthSpecialist",
    "optical_flow": "dense_specialists:FlowSpecialist",
    "image_classification": "recognition_specialists:ClassificationSpecialist",
    "object_detection": "recognition_specialists:DetectionSpecialist",
    "video_prediction": "image_specialists:TimedSpecialist",
    "frame_interpolation": "image_specialists:TimedSpecialist",
    "view_synthesis": "image_specialists:ViewSpecialist",
}


def has_specialist(task: Task) -> bool:
    """Whether there is a network to compare with on this task."""
    return task.name in _CLASSES


def make_specialist(task: Task) -> Specialist:
    """The task's specialist, randomly initialised.

    Raises:
        ConfigError: the task has none.
    """
    if not has_specialist(task):
        raise ConfigError(
            f"no specialist for {task.name}", field="specialists", expected=f"one of {', '.join(_CLASSES)}"
        )
    module, _, name = _CLASSES[task.name].partition(":")
    loaded = __import__(f"{_MODULE}.{module}", fromlist=[name])
    return getattr(loaded, name)(task)
