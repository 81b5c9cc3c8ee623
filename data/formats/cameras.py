"""Cameras of the user's own images, in a JSON file.

    {
      "images": {
        "left.png":  {"intrinsics": [[f, 0, cx], [0, f, cy], [0, 0, 1]], "world_from_camera": [4 rows of 4]},
        "right.png": {...}
      },
      "query": {"intrinsics": ..., "world_from_camera": ...}
    }

OpenCV's convention (x right, y down, z forward); intrinsics in pixels of the image file, those of the query
in pixels of the first image; translations in metres.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from transframer.data.formats.atomic import write_json
from transframer.errors import DataError
from transframer.frames import Camera


def read_cameras(path: str | os.PathLike[str], images: Sequence[str]) -> tuple[list[Camera], Camera]:
    """Reads one camera per image, in the order asked for, and the query camera.

    Args:
        images: file names of the images; folders in front of the names are ignored.

    Raises:
        DataError: the file is missing, not JSON, or lacks a camera; or one is not a pinhole camera with a
            rigid pose.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from error
    except ValueError as error:
        raise DataError(f"not a JSON file: {error}", file=path) from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), dict) or "query" not in content:
        raise DataError("no cameras", file=path, expected='an object with the keys "images" and "query"')
    known = content["images"]
    cameras = []
    for name in (Path(image).name for image in images):
        if name not in known:
            raise DataError(
                f"no camera for {name}", file=path, expected=f"one for each image; found {sorted(known)}"
            )
        cameras.append(_camera(known[name], path, f"images.{name}"))
    return cameras, _camera(content["query"], path, "query")


def write_cameras(path: str | os.PathLike[str], cameras: Mapping[str, Camera], query: Camera) -> None:
    """Writes the file that `read_cameras` reads.

    Args:
        cameras: by file name of the image.

    Raises:
        DataError: the file cannot be written.
    """
    content = {"images": {name: _entry(camera) for name, camera in cameras.items()}, "query": _entry(query)}
    write_json(Path(path), content)


def _entry(camera: Camera) -> dict[str, list]:
    return {"intrinsics": camera.intrinsics.tolist(), "world_from_camera": camera.world_from_camera.tolist()}


def _camera(entry: Any, file: Path, field: str) -> Camera:
    if not isinstance(entry, dict):
        raise DataError("not a camera", file=file, field=field, expected="an object")
    intrinsics = _matrix(entry, "intrinsics", 3, file, field)
    pose = _matrix(entry, "world_from_camera", 4, file, field)
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0 or intrinsics[2].tolist() != [0, 0, 1]:
        raise DataError(
            "not the intrinsics of a pinhole camera",
            file=file,
            field=f"{field}.intrinsics",
            expected="[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0",
        )
    rotation = pose[:3, :3]
    rigid = torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-3) and torch.det(rotation) > 0
    if not rigid or pose[3].tolist() != [0, 0, 0, 1]:
        raise DataError(
            "not a rigid transform",
            file=file,
            field=f"{field}.world_from_camera",
            expected="a rotation and a translation, last row [0, 0, 0, 1]",
        )
    return Camera(intrinsics, pose)


def _matrix(entry: dict[str, Any], key: str, size: int, file: Path, field: str) -> torch.Tensor:
    try:
        matrix = torch.tensor(entry[key], dtype=torch.float32)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
        matrix = torch.empty(0)
    if matrix.shape != (size, size) or not matrix.isfinite().all():
        raise DataError(
            "missing or not a matrix",
            file=file,
            field=f"{field}.{key}",
            expected=f"{size} rows of {size} numbers",
        )
    return matrix
