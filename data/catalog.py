"""The known formats of data sets, and opening one by its format or by what its folder looks like."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transframer.data.dataset import Dataset
from transframer.data.source import serves
from transframer.data.subset import OPTION, few_labels
from transframer.errors import ConfigError, DataError, unknown_name
from transframer.task import Clip, Task

_FOLDER = "transframer.data.datasets"
# Imported when they are asked for: their libraries are slow to import.
FORMATS = {
    "ade20k": f"{_FOLDER}.ade20k:ADE20K",
    "bair": f"{_FOLDER}.bair:BAIR",
    "cifar10": f"{_FOLDER}.small_images:CIFAR10",
    "cifar100": f"{_FOLDER}.small_images:CIFAR100",
    "cityscapes": f"{_FOLDER}.cityscapes:Cityscapes",
    "coco": f"{_FOLDER}.coco:COCO",
    "coco_panoptic": f"{_FOLDER}.coco_panoptic:COCOPanoptic",
    "davis": f"{_FOLDER}.davis:DAVIS",
    "fashion_mnist": f"{_FOLDER}.small_images:FashionMNIST",
    "flying_chairs": f"{_FOLDER}.flow_pairs:FlyingChairs",
    "folder": f"{_FOLDER}.folder:Folder",
    "frames": f"{_FOLDER}.frame_folders:FrameFolders",
    "huggingface": f"{_FOLDER}.huggingface:HuggingFace",
    "image_folder": f"{_FOLDER}.image_folder:ImageFolder",
    "kitti_depth": f"{_FOLDER}.kitti_depth:KITTIDepth",
    "kitti_flow": f"{_FOLDER}.flow_pairs:KITTIFlow",
    "middlebury": f"{_FOLDER}.middlebury:Middlebury",
    "mnist": f"{_FOLDER}.small_images:MNIST",
    "motorcycle": f"{_FOLDER}.motorcycle:Motorcycle",
    "moving_mnist": f"{_FOLDER}.moving_mnist:MovingMNIST",
    "nyu_depth_v2": f"{_FOLDER}.nyu_depth:NYUDepthV2",
    "realestate10k": f"{_FOLDER}.realestate10k:RealEstate10K",
    "sintel": f"{_FOLDER}.flow_pairs:Sintel",
    "srn": f"{_FOLDER}.srn:SRN",
    "videos": f"{_FOLDER}.videos:Videos",
    "voc": f"{_FOLDER}.voc:VOC",
}
# Tried on a folder in this order: the unmistakable first, `folder` and whatever holds only images last.
_GUESSES = (
    "coco_panoptic", "coco", "ade20k", "cityscapes", "davis", "voc", "mnist", "fashion_mnist", "cifar10",
    "cifar100", "nyu_depth_v2", "kitti_flow", "kitti_depth", "flying_chairs", "sintel", "middlebury", "srn",
    "realestate10k", "bair", "moving_mnist", "folder", "videos", "huggingface", "frames", "image_folder",
)  # fmt: skip


def dataset_class(format: str) -> type[Dataset]:
    """The class of a format, or of "module:Class".

    Raises:
        UnknownNameError: lists the known formats and the nearest.
        ConfigError: a class that cannot be imported, or is no `Dataset`.
    """
    target = FORMATS.get(format, format)
    if ":" not in target:
        raise unknown_name("data format", format, FORMATS)
    module, _, name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{target!r} cannot be imported: {error}", field="format") from error
    if not (inspect.isclass(found) and issubclass(found, Dataset)):
        raise ConfigError(
            f"{target!r} is no data set",
            field="format",
            expected="a subclass of transframer.data.dataset.Dataset",
        )
    return found


def guess_format(root: Path) -> str:
    """The format whose layout a folder or file has; of several, the most particular.

    Raises:
        DataError: no such folder, or none of the known layouts; lists the formats.
    """
    return next(guesses(root))


def guesses(root: Path) -> Iterator[str]:
    """The formats whose layouts a folder or file has, the most particular first; there is at least one.

    Raises:
        DataError: no such folder, or none of the known layouts; lists the formats.
    """
    if not root.exists():
        raise DataError("no such file or folder", file=root)
    found = False
    for name in _GUESSES:
        if dataset_class(name).looks_like(root):
            found = True
            yield name
    if found:
        return
    raise DataError(
        "not a layout that is known by its looks",
        file=root,
        expected=f"one of {', '.join(sorted(FORMATS))}",
        next_step="name it with --data-format (--format of `transframer data`), or arrange the files as "
        "docs/folder-layout.md says",
    )


def open_dataset(
    root: Path | str,
    split: str,
    task: Task | None = None,
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Opens one split of a data set.

    Args:
        root: its folder or file; for Hugging Face data sets also an id on the hub.
        task: what the records are for; decides which frames of a sequence they hold.
        format: one of FORMATS, or "module:Class"; guessed from the folder where not given: of the layouts
            that it has, the first that serves the task. (Numbered images may be of a class, or of a video.)
        options: further arguments of the format's class; of any format also `train_samples`, to keep so many
            training records (see `few_labels`).

    Raises:
        TransframerError: an unknown format, options that it does not have, a folder that is not of it.
    """
    own = dict(options or {})
    train_samples = own.pop(OPTION, None)
    whole = _whole(root, split, task, format, own)
    return whole if train_samples is None else few_labels(whole, train_samples)


def _whole(
    root: Path | str, split: str, task: Task | None, format: str | None, options: Mapping[str, Any]
) -> Dataset:
    if format is None and str(root) in FORMATS and not Path(root).exists():
        format = str(root)  # "motorcycle" needs no folder
    if format is not None:
        return _opened(root, split, task, format, options)
    opened: list[Dataset | DataError] = []
    for guess in guesses(Path(root)):
        try:
            dataset = _opened(root, split, task, guess, options)
            if task is None or serves(dataset, task.sample_type):
                return dataset
            opened.append(dataset)
        except DataError as error:
            opened.append(error)
    if isinstance(opened[0], DataError):
        raise opened[0]
    return opened[0]


def _opened(
    root: Path | str, split: str, task: Task | None, format: str, options: Mapping[str, Any]
) -> Dataset:
    cls = dataset_class(format)
    known = [name for name in inspect.signature(cls).parameters if name not in ("root", "split", "clip")]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{format} has no option {name!r}",
                field="data_options",
                expected=f"one of {', '.join([*known, OPTION])}",
            )
    return cls(root, split, task.clip if task else Clip(), **options)


def task_for(task: Task, dataset: Dataset) -> Task:
    """The task with the class names of the data set, where it has such a setting and the data set names any.

    A task's field `classes` gets those of the label that its samples hold.
    """
    if "classes" not in {field.name for field in dataclasses.fields(task)}:
        return task
    for key in sorted(task.sample_type.__annotations__):
        if names := dataset.classes.get(key):
            return dataclasses.replace(task, classes=tuple(names))  # type: ignore[call-arg]
    return task
