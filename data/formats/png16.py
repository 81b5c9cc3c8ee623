"""Labels in 16-bit PNG: depth (grey, 0 = unknown) and KITTI's flow (RGB, valid in the third channel)."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from transframer.data.formats.atomic import whole_file
from transframer.data.formats.images import DEFAULT_MAX_PIXELS, opened_image
from transframer.errors import DataError

_FLOW_ZERO, _FLOW_STEPS = 2**15, 64.0  # KITTI: u = (u16 - 2^15) / 64 pixels


def read_depth_png(
    path: str | os.PathLike[str], units_per_m: float = 1000.0, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Float[Tensor, "h w"]:
    """Reads a depth map in metres, 0 where unknown.

    Args:
        units_per_m: 1000 for millimetres (NYUv2, ScanNet, this toolkit), 256 for KITTI.
        max_pixels: the cap on width x height.

    Raises:
        DataError: the file is missing, damaged, too large, or not a 16-bit grey PNG.
    """
    with opened_image(path, max_pixels) as image:
        if not image.mode.startswith("I"):
            raise DataError(f"an image of mode {image.mode}", file=path, expected="16-bit grey")
        values = np.asarray(image).astype(np.float32)
    return torch.from_numpy(values / np.float32(units_per_m))


def write_depth_png(
    path: str | os.PathLike[str], depth_m: Float[Tensor, "h w"], units_per_m: float = 1000.0
) -> None:
    """Writes a depth map in metres; unknown (0, not finite) is written as 0, too far as the greatest value.

    Raises:
        DataError: the file cannot be written.
    """
    depth = depth_m.detach().cpu().double().numpy()
    known = np.isfinite(depth) & (depth > 0)
    # A known depth never rounds down to 0, which would mean unknown.
    units = np.where(known, np.clip(np.rint(np.where(known, depth, 0) * units_per_m), 1, 65535), 0)
    with whole_file(path) as temporary:
        Image.fromarray(units.astype(np.uint16)).save(temporary, format="PNG")


def read_kitti_flow(
    path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Float[Tensor, "2 h w"], Bool[Tensor, "h w"]]:
    """Reads KITTI's flow: pixels (x, y), 0 where unknown, and where it is known.

    Raises:
        DataError: the file is missing, damaged, too large, or not a 16-bit RGB PNG.
    """
    # Pillow keeps one byte of each 16-bit sample. Its unpackers for the two byte orders keep different ones,
    # so that reading twice gives both.
    high, low = (_byte_plane(path, rawmode, max_pixels) for rawmode in ("RGB;16B", "RGB;16L"))
    samples = torch.from_numpy(high.astype(np.int32) * 256 + low).permute(2, 0, 1)
    valid = samples[2] > 0
    return (samples[:2] - _FLOW_ZERO).float() / _FLOW_STEPS * valid, valid


def _byte_plane(path: str | os.PathLike[str], rawmode: str, max_pixels: int) -> np.ndarray:
    with opened_image(path, max_pixels) as image:
        if image.format != "PNG" or [tile[3] for tile in image.tile] != ["RGB;16B"]:  # type: ignore[attr-defined]
            raise DataError(
                f"a {image.format} image of mode {image.mode}", file=path, expected="16-bit RGB PNG"
            )
        image.tile = [tile._replace(args=rawmode) for tile in image.tile]  # type: ignore[attr-defined]
        return np.asarray(image)


def write_kitti_flow(
    path: str | os.PathLike[str], flow: Float[Tensor, "2 h w"], valid: Bool[Tensor, "h w"] | None = None
) -> None:
    """Writes KITTI's flow, in pixels (x, y), exact to 1/128 px and limited to -512 to 511.98 px.

    Args:
        valid: where the flow is known; everywhere where None.

    Raises:
        DataError: the file cannot be written.
    """
    _, height, width = flow.shape
    known = torch.ones(height, width, dtype=torch.bool) if valid is None else valid.cpu()
    units = (flow.detach().cpu().double() * _FLOW_STEPS + _FLOW_ZERO).round().clamp(0, 65535) * known
    samples = torch.cat([units, known[None].double()]).permute(1, 2, 0).numpy().astype(">u2")
    with whole_file(path) as temporary:
        temporary.write_bytes(_png_of_rgb16(samples))


def _png_of_rgb16(samples: np.ndarray) -> bytes:
    """A PNG (RFC 2083) of h x w x 3 big-endian 16-bit samples, which Pillow cannot write."""
    height, width, _ = samples.shape
    rows = samples.reshape(height, -1).view(np.uint8)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter 0 of each row: none
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
