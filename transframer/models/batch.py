"""Episodes collated into tensors: context frames packed one after the other, queries one per episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from transframer.errors import ConfigError, DataError, unknown_name
from transframer.frames import Annotation, Camera, CodecSettings, Episode

BLOCK = 8


@dataclass
class Annotations:
    """The annotations of f frames as tensors; a flag says where one is absent.

    Attributes:
        kind: index into the model's kinds.
        time: relative to the query's time, where both are known.
        rays: origin and direction of the ray through each block's centre, in the query's camera frame
            (in world coordinates where the query has no camera).
        reference: the frame's weight in the image that the target is coded against.
    """

    kind: Int[Tensor, " f"]
    time: Float[Tensor, " f"]
    has_time: Bool[Tensor, " f"]
    rays: Float[Tensor, "f 6 gy gx"]
    has_camera: Bool[Tensor, " f"]
    reference: Float[Tensor, " f"]

    def select(self, index: Int[Tensor, " k"]) -> Annotations:
        """Those of these frames."""
        return Annotations(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass
class Batch:
    """b episodes with f context frames in all, of one size.

    Attributes:
        images: the context images, packed episode after episode.
        slots: the packed index of each episode's context frames, f where it has fewer than n; then the
            index of its target slot, f + episode.
        groups: the same without padding: for each number of frames that episodes have, their rows of slots.
        context, query: annotations of the context frames and of the query.
        task: index into the model's tasks.
        codec: each query's codec settings.
        reference: the image that the target is coded against; zero where there is none.
        target: the target image, None at inference.
        names: each episode's task name.
    """

    images: UInt8[Tensor, "f 3 h w"]
    episode: Int[Tensor, " f"]
    slots: Int[Tensor, "b n"]
    groups: tuple[Int[Tensor, "_ _"], ...]
    context: Annotations
    query: Annotations
    task: Int[Tensor, " b"]
    codec: list[CodecSettings]
    has_reference: Bool[Tensor, " b"]
    reference: Float[Tensor, "b 3 h w"]
    target: UInt8[Tensor, "b 3 h w"] | None
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of 8 x 8 blocks."""
        return self.images.shape[2] // BLOCK, self.images.shape[3] // BLOCK

    @property
    def halves_chroma(self) -> Bool[Tensor, " b"]:
        """Which targets are coded with chroma at half the resolution; on the CPU."""
        return torch.tensor([settings.subsampling == "4:2:0" for settings in self.codec])

    @property
    def level(self) -> Float[Tensor, "b 3 h w"]:
        """What targets are coded as differences from, in grey levels: their references, or 128."""
        return torch.where(self.has_reference[:, None, None, None], self.reference, 128.0)

    def select(self, rows: Int[Tensor, " k"]) -> tuple[Batch, Int[Tensor, " f2"]]:
        """These episodes, which may repeat, and the packed indices of their context frames."""
        slots = self.slots[rows, :-1]
        real = slots < len(self.images)
        frames = slots[real]
        counts = real.sum(1).tolist()
        packed, groups = pack_slots(counts)
        picked = rows.tolist()
        device = self.images.device
        batch = Batch(
            images=self.images[frames],
            episode=torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)).to(device),
            slots=packed.to(device),
            groups=_moved(groups, device),
            context=self.context.select(frames),
            query=self.query.select(rows),
            task=self.task[rows],
            codec=[self.codec[i] for i in picked],
            has_reference=self.has_reference[rows],
            reference=self.reference[rows],
            target=None if self.target is None else self.target[rows],
            names=[self.names[i] for i in picked],
        )
        return batch, frames

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{f.name: _moved(getattr(self, f.name), device) for f in fields(self)})


def _moved(value, device):
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Annotations):
        return Annotations(**{f.name: getattr(value, f.name).to(device) for f in fields(value)})
    if isinstance(value, tuple):
        return tuple(group.to(device) for group in value)
    return value


def collate(episodes: Sequence[Episode], tasks: Sequence[str], kinds: Sequence[str]) -> Batch:
    """Episodes of one size as a batch.

    Args:
        tasks, kinds: the names that the model embeds.

    Raises:
        DataError: frames of several sizes.
        ConfigError: a size that is not a multiple of 16.
        UnknownNameError: a task or kind that the model has no embedding for.
    """
    sizes = {episode.size for episode in episodes}
    if len(sizes) != 1:
        raise DataError(f"episodes of sizes {sorted(sizes)} in one batch", expected="one size")
    (height, width) = sizes.pop()
    if height % 16 or width % 16:
        raise ConfigError(f"frames of {height} x {width} pixels", expected="multiples of 16 for a model")
    grid = (height // BLOCK, width // BLOCK)
    frames = [frame for episode in episodes for frame in episode.context]
    counts = [len(episode.context) for episode in episodes]
    slots, groups = pack_slots(counts)
    queries = [episode.query for episode in episodes]
    references = [episode.reference_image() for episode in episodes]
    blank = torch.zeros(3, height, width)
    context_annotations = [
        _annotation_row(frame.annotation, episode.query, weight, grid, kinds)
        for episode in episodes
        for frame, weight in zip(
            episode.context, episode.query.codec.reference or (0.0,) * len(episode.context), strict=True
        )
    ]
    targets = [episode.target.image for episode in episodes if episode.target is not None]
    return Batch(
        images=torch.stack([frame.image for frame in frames]),
        episode=torch.arange(len(episodes)).repeat_interleave(torch.tensor(counts)),
        slots=slots,
        groups=groups,
        context=_stack(context_annotations),
        query=_stack([_annotation_row(query, query, 0.0, grid, kinds) for query in queries]),
        task=torch.tensor([_index("task", episode.task, tasks) for episode in episodes]),
        codec=[query.codec for query in queries],
        has_reference=torch.tensor([reference is not None for reference in references]),
        reference=torch.stack([blank if r is None else r for r in references]),
        target=torch.stack(targets) if len(targets) == len(episodes) else None,
        names=[episode.task for episode in episodes],
    )


def pack_slots(counts: Sequence[int]) -> tuple[Int[Tensor, "b n"], tuple[Int[Tensor, "_ _"], ...]]:
    """Slots and groups of a batch (see there) whose episodes have these numbers of context frames."""
    number = torch.tensor(counts)
    frames, episodes = int(number.sum()), len(counts)
    column = torch.arange(max(counts) + 1)
    # A frame that is absent points past all real frames: context, then one target slot per episode.
    first = (number.cumsum(0) - number)[:, None]
    slots = torch.where(column < number[:, None], first + column, frames + episodes)
    slots[:, -1] = frames + torch.arange(episodes)
    groups = tuple(slots[number == n][:, [*range(n), -1]] for n in sorted(set(counts)))
    return slots, groups


def ray_map(camera: Camera, grid: tuple[int, int], query: Camera | None) -> Float[Tensor, "6 gy gx"]:
    """Origin and unit direction of the ray through the centre of each 8 x 8 block.

    Args:
        query: the camera in whose frame the rays are expressed; None for world coordinates.
    """
    pose = camera.world_from_camera.double()
    if query is not None:
        pose = torch.linalg.solve(query.world_from_camera.double(), pose)
    y, x = torch.meshgrid(*(BLOCK * (torch.arange(n).double() + 0.5) for n in grid), indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    direction = pose[:3, :3] @ torch.linalg.solve(camera.intrinsics.double(), pixel)
    direction = direction / direction.norm(dim=0)
    origin = pose[:3, 3:].expand_as(direction)
    return torch.cat([origin, direction]).view(6, *grid).float()


def _annotation_row(
    annotation: Annotation, query: Annotation, reference: float, grid: tuple[int, int], kinds: Sequence[str]
) -> tuple:
    timed = annotation.time is not None
    # With no time asked for, the times of the context keep their own origin.
    time = annotation.time - (query.time or 0.0) if annotation.time is not None else 0.0
    camera = annotation.camera
    rays = torch.zeros(6, *grid) if camera is None else ray_map(camera, grid, query.camera)
    return _index("annotation kind", annotation.kind, kinds), time, timed, rays, camera is not None, reference


def _stack(rows: list[tuple]) -> Annotations:
    kind, time, has_time, rays, has_camera, reference = zip(*rows, strict=True)
    return Annotations(
        kind=torch.tensor(kind),
        time=torch.tensor(time, dtype=torch.float32),
        has_time=torch.tensor(has_time),
        rays=torch.stack(rays),
        has_camera=torch.tensor(has_camera),
        reference=torch.tensor(reference, dtype=torch.float32),
    )


def _index(what: str, name: str, known: Sequence[str]) -> int:
    if name not in known:
        raise unknown_name(what, name, known, next_step="This model was not trained on it.")
    return list(known).index(name)
