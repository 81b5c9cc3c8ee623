"""The targets of episodes to grids and back: what a model predicts, and the codec's own ceiling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transframer.codec.dct import grid_from_image, image_from_grid
from transframer.errors import DataError
from transframer.frames import Episode, Frame


def code_episodes(episodes: Sequence[Episode]) -> Int[Tensor, "b 192 gy gx"]:
    """The grid of each episode's target, coded with the settings of its query.

    Raises:
        DataError: an episode without a target, or episodes of different sizes.
    """
    if any(episode.target is None for episode in episodes):
        raise DataError("an episode without a target frame", expected="a target in every episode to be coded")
    reference = stack_references(episodes)
    images = torch.stack([episode.target.image for episode in episodes])  # type: ignore[union-attr]
    return grid_from_image(images, [episode.query.codec for episode in episodes], reference)


def decode_frames(grid: Int[Tensor, "b 192 gy gx"], episodes: Sequence[Episode]) -> list[Frame]:
    """The frame of each grid, on the CPU, annotated by the episode's query; needs no targets.

    Raises:
        DataError: episodes of different sizes.
    """
    reference = stack_references(episodes)
    if reference is not None:
        reference = reference.to(grid.device)
    settings = [episode.query.codec for episode in episodes]
    images = image_from_grid(grid, settings, episodes[0].size, reference).cpu()
    return [Frame(image, episode.query) for image, episode in zip(images, episodes, strict=True)]


def round_trips(episodes: Sequence[Episode]) -> list[Frame]:
    """The target of each episode, coded and decoded: the best that a model of coded frames can predict."""
    return decode_frames(code_episodes(episodes), episodes)


def round_trip(episode: Episode) -> Frame:
    """The episode's target, coded and decoded.

    >>> from transframer.frames import Annotation
    >>> grey = Frame(torch.full((3, 16, 16), 100, dtype=torch.uint8))
    >>> int(round_trip(Episode("a task", (grey,), Annotation(kind="depth"), grey)).image.float().mean())
    100
    """
    return round_trips([episode])[0]


def token_count(episodes: Sequence[Episode]) -> Int[Tensor, " b"]:
    """How many triples each episode's target is coded with."""
    return code_episodes(episodes).flatten(1).count_nonzero(1)


def stack_references(episodes: Sequence[Episode]) -> Float[Tensor, "b 3 h w"] | None:
    """The image each target is coded against, 0-255, zeros where it is coded alone; None if all are.

    Raises:
        DataError: episodes of different sizes.
    """
    sizes = {episode.size for episode in episodes}
    if len(sizes) != 1:
        raise DataError(f"a batch of frames of sizes {sorted(sizes)}", expected="one size in a batch")
    references = [episode.reference_image() for episode in episodes]
    if all(reference is None for reference in references):
        return None
    nothing = torch.zeros(3, *sizes.pop())
    return torch.stack([nothing if reference is None else reference for reference in references])
