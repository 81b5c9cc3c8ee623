"""Small spatial-temporal models, and clips that they learn in seconds."""

import torch

from transframer.frames import Annotation, Episode, Frame
from transframer.models.spatial_temporal_config import SpatialTemporalConfig

SIZE = 16
CONFIG = SpatialTemporalConfig(
    widths=(8, 16),
    groups=2,
    codes=8,
    code_width=4,
    width=32,
    layers=2,
    heads=2,
    mlp_ratio=2.0,
    latent_width=4,
    whole_frame_layers=1,
    kl_warmup=0.3,
)


def noise_frame(seed):
    """Smooth colours that differ from seed to seed."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, 3, 3, generator=generator)
    image = torch.nn.functional.interpolate(small, (SIZE, SIZE), mode="bilinear", align_corners=True)[0]
    return (255 * image).round().to(torch.uint8)


def video_episode(images, target=None, times=None, query_time=1.0, task="video_prediction"):
    """The images at the times -n + 1, ..., 0, or at those given."""
    times = [float(i + 1 - len(images)) for i in range(len(images))] if times is None else times
    query = Annotation(time=query_time)
    context = tuple(Frame(image, Annotation(time=t)) for image, t in zip(images, times, strict=True))
    return Episode(task, context, query, None if target is None else Frame(target, query))


def wake(model):
    """Random weights everywhere, and codebooks that are in use."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        books = model.autoencoder.codebooks
        books.vectors.copy_(torch.randn(books.vectors.shape, generator=generator))
        books.ready.fill_(True)
    return model.eval()
