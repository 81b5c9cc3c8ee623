"""The embedded data source: procedural scenes that give every label exactly."""

from transframer.data.world.scene import IMAGE_CLASSES, MAX_DEPTH_M, OBJECT_CLASSES, SEGMENTATION_CLASSES
from transframer.data.world.world import LABELS, Clips, World

__all__ = [
    "IMAGE_CLASSES",
    "LABELS",
    "MAX_DEPTH_M",
    "OBJECT_CLASSES",
    "SEGMENTATION_CLASSES",
    "Clips",
    "World",
]
