"""Images: reading any that Pillow reads, as 8-bit RGB; writing PNG; resizing pictures and labels."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from transframer.codec import image_from_jpeg
from transframer.data.formats.atomic import whole_file
from transframer.errors import DataError

DEFAULT_MAX_PIXELS = 64_000_000
_JPEG_SUFFIXES = {".jpg", ".jpeg"}
_JPEG_BYTES = 4  # for a pixel, at most
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap the sides
_PNG_EXIF = {"exif", "Raw profile type exif", "xmp"}  # where Pillow keeps what a PNG's header has of it
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def _named(source: str | os.PathLike[str] | io.BytesIO) -> object:
    """What errors call an image."""
    return getattr(source, "name", "bytes of an image") if isinstance(source, io.BytesIO) else Path(source)


@contextmanager
def opened_image(
    path: str | os.PathLike[str] | io.BytesIO, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Iterator[Image.Image]:
    """Opens an image, checks its header, and turns whatever fails while it is decoded into a DataError.

    Args:
        path: of the file; or its bytes, whose attribute `name`, where they have one, is what errors say.
        max_pixels: the cap on width x height, checked before anything is decoded: a file of some
            kilobytes can ask for gigabytes. Beyond 179 million, raise `PIL.Image.MAX_IMAGE_PIXELS` too.

    Raises:
        DataError: the file is missing, no image, damaged, truncated, or larger than the cap.
    """
    source, file = (path if isinstance(path, io.BytesIO) else Path(path)), _named(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of, the cap and the errors below say once
            with Image.open(source) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise DataError(
                        f"an image of {width} x {height} pixels",
                        file=file,
                        expected=f"at most {max_pixels / 1e6:g} million pixels",
                        next_step="resize the image, or raise the cap if you trust the file",
                    )
                yield image
    except Image.UnidentifiedImageError as error:
        raise DataError("not an image, or damaged", file=file, expected="PNG, JPEG, WebP or TIFF") from error
    except FileNotFoundError as error:
        raise DataError("no such file", file=file) from error
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"cannot be read as an image: {reason}", file=file) from error


def size_of(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened image as `load_image` gives it, from the header alone."""
    width, height = image.size
    # Asked for its EXIF data, Pillow decodes a PNG whose header has none.
    has_exif = image.format != "PNG" or not _PNG_EXIF.isdisjoint(image.info)
    sideways = has_exif and image.getexif().get(_ORIENTATION) in _SIDEWAYS
    if sideways and image.format == "TIFF":  # which Pillow turns itself, its size before its tag
        image.load()
        (width, height), sideways = image.size, image.getexif().get(_ORIENTATION) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of an image as `load_image` gives it, from the header alone.

    Raises:
        DataError: the file is missing, no image, or larger than the cap.
    """
    with opened_image(path) as image:
        return size_of(image)


def load_image(
    path: str | os.PathLike[str] | io.BytesIO, max_pixels: int = DEFAULT_MAX_PIXELS
) -> UInt8[Tensor, "3 h w"]:
    """Reads an image as RGB, 0-255: turned upright by its EXIF tag, transparency over white.

    Grey, palette, CMYK and 16-bit images are converted; of an animation the first picture is read.

    Args:
        path: of the file, or its bytes; see `opened_image`.
        max_pixels: the cap on width x height, checked before decoding.

    Raises:
        DataError: the file is missing, no image, damaged, truncated, or larger than the cap.
    """
    if (decoded := _image_from_jpeg(path, max_pixels)) is not None:
        return decoded
    with opened_image(path, max_pixels) as image:
        if image.mode == "F":
            raise DataError(
                "an image of floating-point samples", file=_named(path), expected="8 or 16 bits a sample"
            )
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16-bit grey, which Pillow's convert would clip at 255
            grey = np.asarray(upright).astype(np.int64).clip(0, 65535)
            upright = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
        if upright.has_transparency_data:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        pixels = np.array(upright.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _image_from_jpeg(path: str | os.PathLike[str] | io.BytesIO, max_pixels: int) -> Tensor | None:
    """The pixels of a JPEG file that the codec decodes by itself; None of all others."""
    if isinstance(path, io.BytesIO):
        data = path.getvalue()
    elif Path(path).suffix.lower() not in _JPEG_SUFFIXES:
        return None
    else:
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size > _JPEG_BYTES * max_pixels:
                    return None
                data = file.read()
        except (OSError, ValueError):
            return None  # and is said when it is opened
    if data[:2] != b"\xff\xd8":
        return None
    return image_from_jpeg(data, str(_named(path)), max_pixels)


def save_png(path: str | os.PathLike[str], image: UInt8[Tensor, "3 h w"]) -> None:
    """Writes an RGB image as PNG, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    pixels = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def resize_image(image: UInt8[Tensor, "3 h w"], size: tuple[int, int]) -> UInt8[Tensor, "3 h2 w2"]:
    """An image resized by the antialiased bicubic filter, as Pillow's BICUBIC.

    Args:
        size: height and width.
    """
    if tuple(image.shape[1:]) == tuple(size):
        return image
    resized = F.interpolate(image[None].float(), tuple(size), mode="bicubic", antialias=True)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)


def resize_nearest(labels: Shaped[Tensor, "h w"], size: tuple[int, int]) -> Shaped[Tensor, "h2 w2"]:
    """A label map (classes, depth, validity) resized by taking the nearest value, so that none is mixed.

    Args:
        size: height and width.
    """
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for old, new in zip(labels.shape, size, strict=True)
    )
    return labels[rows.to(labels.device)[:, None], columns.to(labels.device)]


def resize_flow(flow: Float[Tensor, "2 h w"], size: tuple[int, int]) -> Float[Tensor, "2 h2 w2"]:
    """A dense flow field resized bilinearly, its vectors scaled to the new pixels.

    Args:
        size: height and width.
    """
    _, height, width = flow.shape
    scale = torch.tensor([size[1] / width, size[0] / height], dtype=flow.dtype, device=flow.device)
    resized = F.interpolate(flow[None], tuple(size), mode="bilinear", antialias=True)[0]
    return resized * scale[:, None, None]
