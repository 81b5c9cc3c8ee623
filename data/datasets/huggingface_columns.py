"""Which column of a Hugging Face data set holds which field, and what the values of its cells mean."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.data.datasets.boxes import clipped, corners_from_xywh
from transframer.data.formats.images import opened_image
from transframer.errors import ConfigError, DataError, unknown_name

FIELDS = ("images", "target", "label", "mask", "depth_m", "boxes", "box_labels")
# The names that columns have on the hub; a mask is often called as the label is.
_IMAGE_NAMES = ("image", "img", "images", "pixel_values", "jpg", "png", "webp")
_MASK_NAMES = ("mask", "annotation", "segmentation_mask", "semantic_mask", "label", "labels", "seg")
_DEPTH_NAMES = ("depth_m", "depth", "depth_map")
_BOX_KEYS = ("bbox", "bboxes", "boxes", "box")
_CLASS_KEYS = ("category", "categories", "category_id", "label", "labels", "class", "class_id")


def is_image(feature: Any) -> bool:
    """Whether a feature is an image, or a list of images."""
    import datasets

    return isinstance(element(feature), datasets.Image)


def element(feature: Any) -> Any:
    """The feature that a list holds; another feature as it is."""
    import datasets

    while isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    return feature


def choose_columns(
    features: Mapping[str, Any], given: Mapping[str, str | Sequence[str] | None], root: Path
) -> dict[str, list[str]]:
    """The columns of each field: those given, and for other fields those that the features suggest.

    Raises:
        TransframerError: an unknown field or column, or no column that is clearly the image.
    """
    import datasets

    for field in given:
        if field not in FIELDS:
            raise unknown_name("field of columns", field, FIELDS)
    chosen = {
        field: [names] if isinstance(names, str) else list(names) for field, names in given.items() if names
    }
    for name in [name for names in chosen.values() for name in names]:
        if name not in features:
            raise unknown_name("column", name, features)
    for name in chosen.get("label", []):
        if not isinstance(features[name], datasets.ClassLabel | datasets.Value):
            raise ConfigError(f"column {name} is no class", field="columns.label", expected="one value a row")
    free = [name for name in features if not any(name in names for names in chosen.values())]
    images = [name for name in free if is_image(features[name])]

    def suggest(field: str, names: Sequence[str]) -> None:
        if field not in given and names:
            chosen[field] = [names[0]]
            images[:] = [name for name in images if name != names[0]]

    suggest("images", [name for name in _IMAGE_NAMES if name in images] or images[: len(images) == 1])
    if "images" not in chosen:
        raise ConfigError(
            f"{root} has the columns {', '.join(features)}",
            field="columns",
            expected="one column of images",
            next_step="say which one: columns: {images: NAME}",
        )
    suggest("mask", [name for name in _MASK_NAMES if name in images])
    suggest("depth_m", [name for name in _DEPTH_NAMES if name in free])
    labels = [name for name in free if isinstance(features[name], datasets.ClassLabel)]
    suggest("label", [name for name in labels if name == "label"] or labels[: len(labels) == 1])
    suggest("boxes", [name for name in free if object_keys(features[name])])
    return chosen


def object_keys(feature: Any) -> tuple[str, str] | None:
    """The keys of boxes and of classes in a column of objects; None of a column of something else."""
    feature = element(feature)
    if not isinstance(feature, dict):
        return None
    found = [next((key for key in keys if key in feature), None) for keys in (_BOX_KEYS, _CLASS_KEYS)]
    return (found[0], found[1]) if found[0] and found[1] else None


@dataclass(frozen=True)
class Classes:
    """The names of classes, and the place among them of what a column holds.

    Attributes:
        places: of each value; None where values are places already.
    """

    names: tuple[str, ...]
    places: Mapping[Any, int] | None = None

    def place(self, value: Any, cell: str) -> int:
        """The id of a value.

        Raises:
            DataError: it is none of the classes, as -1 is, the hub's mark of what is not labelled.
        """
        found = value if self.places is None else self.places.get(value, -1)
        if not isinstance(found, int) or not 0 <= found < len(self.names):
            raise DataError(
                f"{value!r} is none of the {len(self.names)} classes" if value != -1 else "not labelled",
                file=cell,
                expected=f"0 to {len(self.names) - 1}" if self.places is None else "a known class",
            )
        return found


def classes_of(
    feature: Any, field: str, given: Sequence[str] | None, values: Sequence[Any] | None
) -> Classes:
    """The classes of a column.

    Args:
        given: names that the user gives.
        values: all that the column holds, where that is known.

    Raises:
        ConfigError: the names are not known.
    """
    import datasets

    feature = element(feature)
    if isinstance(feature, datasets.ClassLabel):
        return Classes(tuple(given or feature.names))
    text = isinstance(feature, datasets.Value) and "string" in feature.dtype
    if given:
        return Classes(tuple(given), {name: place for place, name in enumerate(given)} if text else None)
    if values is None:
        column = "boxes" if field == "box_labels" else field
        raise ConfigError(
            "the data set does not say the names of these classes",
            field=f"class_names.{field}",
            expected="a list of names, in the order of the ids",
            next_step=f"or leave them out, with columns: {{{column}: null}}",
        )
    ordered = sorted(value for value in values if value is not None and value != -1)
    return Classes(tuple(map(str, ordered)), {value: place for place, value in enumerate(ordered)})


def image_source(value: Any, cell: str) -> Path | io.BytesIO:
    """What `load_image` reads for the cell of an image that `datasets` left encoded.

    Raises:
        DataError: the cell is empty, or names a file that cannot be read.
    """
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
    if content is None and path and "://" in path:
        import fsspec  # of a stream, images may be members of archives on the hub

        try:
            with fsspec.open(path, "rb") as file:
                content = file.read()
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot be read: {error}", file=path) from error
    if content is not None:
        source = io.BytesIO(content)
        source.name = f"{cell} ({path})" if path else cell  # type: ignore[attr-defined]
        return source
    if not path:
        raise DataError("no image in this cell", file=cell)
    return Path(path)


def read_mask(value: Any, classes: Classes, reduce_labels: bool, cell: str) -> Int[Tensor, "h w"]:
    """A mask out of a grey or palette image, 255 where not labelled.

    Args:
        reduce_labels: 0 means not labelled and class k is stored as k + 1.

    Raises:
        DataError: an image in colour, or an id without a class.
    """
    source = image_source(value, cell)
    with opened_image(source) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise DataError(f"a mask of mode {image.mode}", file=cell, expected="class ids: grey or palette")
        ids = np.asarray(image).astype(np.int64)
    if reduce_labels:
        ids = np.where((ids == 0) | (ids == 255), 255, ids - 1)
    wrong = ids[(ids != 255) & ((ids < 0) | (ids >= len(classes.names)))]
    if len(wrong):
        raise DataError(
            f"class id {wrong[0]} in the mask",
            file=cell,
            expected=f"0 to {len(classes.names) - 1}, or 255 where not labelled",
            next_step="give all names as class_names; set reduce_labels where 0 means not labelled",
        )
    return torch.from_numpy(ids)


def read_depth(value: Any, scale: float | None, cell: str) -> Float[Tensor, "h w"]:
    """Depth in metres out of an image or an array, 0 where unknown.

    Args:
        scale: metres per unit; None is 0.001 for integers of 16 bits and more, and 1 for floats.

    Raises:
        DataError: the form is not that of a map, or the unit is not known.
    """
    mode = "F"
    if isinstance(value, dict):
        with opened_image(image_source(value, cell)) as image:
            mode, values = image.mode, np.asarray(image)
    else:
        values = np.asarray(value, dtype=np.float32)
    if values.ndim == 3:
        values = values[0] if values.shape[0] == 1 else values[..., 0] if values.shape[2] == 1 else values
    if values.ndim != 2:
        raise DataError(f"depth of {values.shape}", file=cell, expected="height x width")
    if scale is None and mode[0] not in "IF":
        raise DataError(
            f"depth in an image of mode {mode}, whose unit is not known",
            file=cell,
            next_step="say how many metres one unit is: depth_scale",
        )
    metres = values.astype(np.float32) * np.float32(scale or (0.001 if mode[0] == "I" else 1.0))
    return torch.from_numpy(np.where(np.isfinite(metres) & (metres > 0), metres, 0).astype(np.float32))


def read_boxes(
    boxes: Any, labels: Any, box_format: str, classes: Classes, size: tuple[int, int], cell: str
) -> tuple[Float[Tensor, "k 4"], Int[Tensor, " k"]]:
    """Boxes, x0 y0 x1 y1 in pixels, cut to the image, and their classes; those outside it are left out.

    Args:
        box_format: "xywh" or "xyxy".
        size: height and width of the image.

    Raises:
        DataError: not four finite numbers a box, another number of classes, or an unknown one.
    """
    try:
        corners = torch.tensor(boxes or [], dtype=torch.float32).reshape(-1, 4)
        ids = torch.tensor([classes.place(label, cell) for label in labels or []], dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"boxes that are not lists of four numbers: {error}", file=cell) from error
    if len(ids) != len(corners) or not corners.isfinite().all():
        raise DataError(
            f"{len(corners)} boxes with {len(ids)} classes", file=cell, expected="finite, one each"
        )
    if box_format == "xywh":
        corners = corners_from_xywh(corners)
    return clipped(corners, ids, size)
