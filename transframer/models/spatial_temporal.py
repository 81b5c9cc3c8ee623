"""The second predictor: a spatial-temporal transformer over the codes of a vector-quantised autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transframer.errors import ConfigError, DataError
from transframer.frames import Episode, Estimate, Frame
from transframer.models.code_heads import CategoricalHead, CodeHead, RegressionHead
from transframer.models.pretrained import Pretrained, settings_of
from transframer.models.space_time import Divergence, SpaceTimeTransformer, TimeCache
from transframer.models.spatial_temporal_config import SpatialTemporalConfig
from transframer.models.video_batch import VideoBatch, collate_videos, refusal
from transframer.models.video_memory import VideoMemory
from transframer.models.vqgan import VQAutoencoder
from transframer.predictor import FramePredictor, Likelihood, Loss, Memory, Samples


class SpatialTemporal(FramePredictor, Pretrained):
    """Learns videos as the codes of a VQ autoencoder, which learns first, from the same frames.

    Each frame's codes are predicted from the frames before it; all cells of a frame at once, held together by
    the latent variables of Gaussian layers (see `space_time.GaussianLayer`). The autoencoder gets no gradient
    from the transformer, so that it cannot make the codes easy instead of true, and stays as it is while the
    transformer learns, so that codes keep their meaning.

    Args:
        config: the settings, or their dictionary as `config.json` holds it.
    """

    def __init__(self, config: SpatialTemporalConfig | dict) -> None:
        super().__init__()
        self.config = config = settings_of(SpatialTemporalConfig, config)
        self.autoencoder = VQAutoencoder(config)
        self.transformer = SpaceTimeTransformer(config)
        self.head: CodeHead = (
            CategoricalHead(config) if config.head == "categorical" else RegressionHead(config)
        )
        for part in (self.transformer, self.head):
            for module in part.modules():  # see `optimisation.make_optimizer`
                module.lr_span = (config.autoencoder_share, 1.0)  # type: ignore[assignment]

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        """A variational bound where there are latent variables."""
        return "bound" if self.config.latent_width else "exact"

    @property
    def settled(self) -> bool:
        """Once the autoencoder stays as it is."""
        return self.progress >= self.config.autoencoder_share

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.autoencoder.codebooks.vectors.device

    def blocks(self) -> list[nn.Module]:
        """The layers of the transformer."""
        return list(self.transformer.layers)

    @classmethod
    def refusal(cls, episode: Episode) -> str | None:
        """Only videos can be learned: RGB frames at known times."""
        return refusal(episode)

    def collate(self, episodes: Sequence[Episode]) -> VideoBatch:
        """Episodes of one size, a multiple of the latents' cell, as a batch on the CPU."""
        return collate_videos(episodes, self.config.cell_px)

    # -- codes --------------------------------------------------------------------------------------------

    def _codes(self, batch: VideoBatch) -> Int[Tensor, "b m gy gx g"]:
        """The codes of a batch's frames; 0 in places without one."""
        present = batch.present
        codes = self.autoencoder.encode_indices(batch.images[present])
        out = codes.new_zeros(*present.shape, *codes.shape[1:])
        out[present] = codes
        return out

    def _noise(self, vectors: Tensor, generator: torch.Generator | None, scale: float = 1.0) -> Tensor:
        b, t, gy, gx, _ = vectors.shape
        shape = self.transformer.noise_shape(b, t, gy * gx)
        if scale == 0:
            return vectors.new_zeros(shape)
        device = generator.device if generator is not None else vectors.device
        return scale * torch.randn(shape, generator=generator, device=device).to(vectors.device)

    def _predicted(
        self, batch: VideoBatch, codes: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Divergence]:
        """Features of every frame but the first, given those before it; their latents are posterior."""
        vectors = self.autoencoder.codebooks.vectors_of(codes)
        known = batch.present[:, 1:]
        return self.transformer(
            vectors[:, :-1],
            batch.times[:, :-1],
            batch.times[:, 1:],
            self._noise(vectors[:, :-1], generator),
            targets=vectors[:, 1:],
            known=known,
        )

    # -- scoring ------------------------------------------------------------------------------------------

    def loss(self, batch: VideoBatch, generator: torch.Generator) -> Loss:
        """In the first part of training the autoencoder's, of one frame of each clip; then the bound of all
        frames after the first."""
        if not batch.has_target:
            raise DataError("episodes without target frames", expected="a target in every episode")
        share = self.config.autoencoder_share
        if self.progress < share:
            return self._autoencoder_loss(batch, generator, self.progress / share)
        codes = self._codes(batch)
        cells, groups = codes.shape[2] * codes.shape[3], codes.shape[4]
        features, divergence = self._predicted(batch, codes, generator)
        valid = batch.present[:, 1:]
        books = self.autoencoder.codebooks
        latest = books.vectors_of(codes[:, :-1][valid])
        trained, nats = self.head.scored(
            features[valid].flatten(0, 1), latest.flatten(0, 2), codes[:, 1:][valid].flatten(0, 2), books
        )
        size = cells * groups
        done, warmup = (self.progress - share) / (1 - share), self.config.kl_warmup
        weight = self.config.kl_weight * (min(1.0, done / warmup) if warmup else 1.0)
        per_frame = trained.view(-1, cells).sum(1) + weight * divergence.closed_form[valid]
        # The target's are logged; valid frames run clip by clip, the target last.
        last = batch.given.cumsum(0) - 1
        code_nats = nats.detach().view(-1, cells).sum(1)[last]
        latent_nats = divergence.closed_form.detach()[valid][last]
        return Loss(
            total=per_frame.mean() / size,
            nats=code_nats + latent_nats,
            events=torch.full_like(batch.given, size),
            parts={"codes": code_nats, "latents": latent_nats},
        )

    def _autoencoder_loss(self, batch: VideoBatch, generator: torch.Generator, progress: float) -> Loss:
        """The nats are those of codes that are all equally likely: nothing is predicted yet."""
        pick = (torch.rand(len(batch), generator=generator) * (batch.given.cpu() + 1)).long()
        rows = torch.arange(len(batch), device=batch.images.device)
        images = batch.images[rows, pick.to(rows.device)]
        loss = self.autoencoder.loss(images, generator, progress)
        bits = self.autoencoder.bits_per_image(*images.shape[2:])
        nats = torch.full(batch.given.shape, bits * math.log(2), device=rows.device)
        events = torch.full_like(batch.given, round(bits / math.log2(self.config.codes)))
        return Loss(loss.total, nats, events, {"codes": nats, "latents": torch.zeros_like(nats)})

    def log_prob(self, episodes: Sequence[Episode]) -> Float[Tensor, " b"]:
        """Nats of the codes of each episode's target frame; with latent variables a lower bound, which grows
        towards it with `bound_samples` (importance weighting, arXiv 1509.00519).

        The latents of the context are drawn from their posterior, as sampling does, with a fixed seed.
        """
        with self.evaluating():
            batch = self.collate(episodes).to(self.device)
            if not batch.has_target:
                raise DataError("episodes without target frames", expected="a target in every episode")
            codes = self._codes(batch)
            rows = torch.arange(len(batch), device=self.device)
            generator = torch.Generator().manual_seed(0)
            books = self.autoencoder.codebooks
            count = self.config.bound_samples if self.config.latent_width else 1
            found = []
            for _ in range(count):
                features, divergence = self._predicted(batch, codes, generator)
                at = rows, batch.given - 1
                _, nats = self.head.scored(
                    features[at].flatten(0, 1),
                    books.vectors_of(codes[at]).flatten(0, 2),
                    codes[rows, batch.given].flatten(0, 2),
                    books,
                )
                found.append(-nats.view(len(batch), -1).double().sum(1) - divergence.log_ratio[at].double())
            return (torch.stack(found).logsumexp(0) - torch.tensor(count).double().log()).float()

    @torch.no_grad()
    def round_trips(self, episodes: Sequence[Episode]) -> tuple[list[Frame], int]:
        """The targets as the autoencoder gives them back, and how many codes they take."""
        targets = [episode.target for episode in episodes if episode.target is not None]
        codes = self.autoencoder.encode_indices(torch.stack([t.image for t in targets]).to(self.device))
        images = self.autoencoder.decode_indices(codes).cpu()
        frames = [Frame(image, t.annotation) for image, t in zip(images, targets, strict=True)]
        return frames, codes.numel()

    # -- sampling -----------------------------------------------------------------------------------------

    def memory(self, window: int) -> VideoMemory:
        """Keys and values of the latest frames, and the codes of the latest one."""
        return VideoMemory(window)

    def sample(
        self,
        episodes: Sequence[Episode],
        *,
        samples_per_query: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        estimate: Estimate = "mode",
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> Samples:
        """Draws all cells of a frame at once.

        The temperature scales the latents' standard deviations too. At temperature 0 the latents are at
        their means; "mode" then takes the likeliest codes, "median" and "mean", for frames that hold a field,
        decode the mean of the vectors that the codes stand for.

        Raises:
            ConfigError: a temperature below 0, top_p outside (0, 1], a memory of another predictor.
        """
        if temperature < 0 or not 0 < top_p <= 1:
            raise ConfigError(
                f"temperature {temperature}, top_p {top_p}", expected="temperature >= 0, top_p in (0, 1]"
            )
        with self.evaluating():
            queries = [episode.without_target() for episode in episodes for _ in range(samples_per_query)]
            batch = self.collate([episode.without_target() for episode in episodes]).to(self.device)
            features, frame = self._next_features(batch, samples_per_query, temperature, generator, memory)
            flat, latest, grid = features.flatten(0, 1), frame.flatten(0, 2), frame.shape[1:3]
            groups, books = self.config.groups, self.autoencoder.codebooks
            device = self.device if generator is None else generator.device
            uniform = torch.rand(len(flat), groups, generator=generator, device=device).to(self.device)
            codes, nats = self.head.drawn(flat, latest, books, temperature, top_p, uniform)
            shape = len(queries), *grid, groups
            vectors = books.vectors_of(codes)
            if isinstance(memory, VideoMemory):
                memory.frame = vectors.view(*shape[:3], -1)
            if temperature == 0 and estimate != "mode":
                vectors = self.head.expected(flat, latest, codes, books)
            images = self.autoencoder.images_of(vectors.view(*shape[:3], -1)).cpu()
        return Samples(
            [Frame(image, query.query) for image, query in zip(images, queries, strict=True)],
            -nats.view(len(queries), -1).sum(1).cpu(),
            torch.full((len(queries),), codes[0].numel() * grid[0] * grid[1]),
        )

    def _next_features(
        self,
        batch: VideoBatch,
        samples_per_query: int,
        temperature: float,
        generator: torch.Generator | None,
        memory: Memory | None,
    ) -> tuple[Float[Tensor, "b n w"], Float[Tensor, "b gy gx c"]]:
        """Features of the frames asked for, latents of the prior; and the vectors of the latest frames."""
        if memory is not None and not isinstance(memory, VideoMemory):
            raise ConfigError(f"a {type(memory).__name__}", field="memory", expected="this model's own")
        if memory is not None and samples_per_query != 1:
            raise ConfigError(
                f"{samples_per_query} samples per query with a memory",
                field="memory",
                expected="one: give an episode for each video",
            )
        rows = torch.arange(len(batch), device=self.device).repeat_interleave(samples_per_query)
        cache: TimeCache | None = None
        if memory is not None and memory.frame is not None:
            if memory.frame.shape[0] != len(rows):
                raise ConfigError(
                    f"a memory of {memory.frame.shape[0]} videos for {len(rows)}", field="memory"
                )
            vectors, times, next_times = memory.next_frame(batch)
            given, targets, known = torch.ones_like(rows), None, None
            cache = memory.cache
        else:
            vectors = self.autoencoder.codebooks.vectors_of(self._codes(batch))[rows, :-1]
            given, frames = batch.given[rows], vectors.shape[1]
            times, next_times = batch.times[rows, :-1], batch.times[rows, 1:]
            targets = torch.cat([vectors[:, 1:], torch.zeros_like(vectors[:, :1])], 1)
            known = torch.arange(frames, device=self.device) < given[:, None] - 1
            if memory is not None:
                cache = memory.start(batch, next_times)
        features, _ = self.transformer(
            vectors,
            times,
            next_times,
            self._noise(vectors, generator, temperature),
            targets=targets,
            known=known,
            cache=cache,
        )
        at = torch.arange(len(rows), device=self.device), given - 1
        return features[at], vectors[at]
