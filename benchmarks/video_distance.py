"""The Frechet distance between true and drawn videos, by the features of a network that the user names.

Gaussians are fitted to the features of both sets; the distance between them is (Heusel et al. 2017, GANs
Trained by a Two Time-Scale Update Rule, arXiv 1706.08500; for videos Unterthiner et al. 2018, Towards
Accurate Generative Models of Video, arXiv 1812.01717)

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)).

Its value depends on the network altogether, and on the number of videos, of which few make it too large:
numbers compare only where both are the same. It is called FVD where the network is the I3D of that paper and
the videos are prepared as there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from transframer.benchmarks.drawn import batches
from transframer.benchmarks.parts import FrechetDistance
from transframer.errors import ConfigError

INPUT = "float32 b x 3 x t x h x w, RGB in [-1, 1]"
_EXPECTED = "a TorchScript file, package.module:function or path/to/file.py:function"


class VideoFeatures:
    """A feature network: `INPUT` -> float b x d.

    Args:
        spec: a TorchScript file, or `package.module:function` or `path/to/file.py:function`, where the
            function takes no arguments and returns the callable.
        device: where its input lies; a network that is a module is moved there and set to evaluation.

    Attributes:
        spec: as given.
        name: short, for the name of the measure.
        sha256: of the TorchScript file or of the Python file; None where there is no file.

    Raises:
        ConfigError: no such file or function, or one that fails.
    """

    def __init__(self, spec: str, device: torch.device) -> None:
        self.spec, self.device = spec, device
        module, colon, function = spec.rpartition(":")
        with_function = bool(colon) and function.isidentifier()
        self.name = f"{Path(module).name}:{function}" if with_function else Path(spec).name
        try:
            if with_function:
                make, file = _function(module, function)
                network = make()
            else:
                file = Path(spec)
                with warnings.catch_warnings():  # newer networks are exported otherwise, this paper's is not
                    warnings.simplefilter("ignore", FutureWarning)
                    network = torch.jit.load(str(file), map_location=device)
        except Exception as error:  # the user's own code may raise anything
            raise self._error(f"{spec} cannot be read: {type(error).__name__}: {error}", _EXPECTED) from error
        if not callable(network):
            raise self._error(f"{spec} returned a {type(network).__name__}", "a callable")
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file else None
        self.network: Callable[[Tensor], Any] = network
        if isinstance(network, nn.Module):
            self.network = network.to(device).eval()

    @property
    def facts(self) -> dict[str, Any]:
        """What a number by this network depends on, for the stamp."""
        return {"network": self.spec, "sha256": self.sha256, "input": INPUT}

    @torch.no_grad()
    def of(self, videos: UInt8[Tensor, "k t 3 h w"], batch_size: int) -> Float64[Tensor, "k d"]:
        """The features of videos of 0-255, on the CPU.

        Raises:
            ConfigError: the network fails, or gives something other than finite numbers, d per video.
        """
        parts = []
        for batch in batches(len(videos), batch_size):
            some = videos[batch.start : batch.stop].to(self.device)
            shape = f"{len(some)} x 3 x {' x '.join(map(str, (some.shape[1], *some.shape[3:])))}"
            try:
                features = self.network((some.float() / 127.5 - 1).transpose(1, 2).contiguous())
            except Exception as error:
                raise self._error(
                    f"{self.name} fails on {shape}: {type(error).__name__}: {error}", f"a network of {INPUT}"
                ) from error
            if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(some):
                found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
                raise self._error(f"{self.name} gives {found} for {shape}", f"{len(some)} rows of features")
            if not features.isfinite().all():
                raise self._error(f"{self.name} gives features that are not finite", "finite numbers")
            parts.append(features.double().cpu())
        return torch.cat(parts)

    @staticmethod
    def _error(found: str, expected: str) -> ConfigError:
        return ConfigError(found, field="video_features", expected=expected)


def video_distance(
    features: VideoFeatures,
    truth: UInt8[Tensor, "k t 3 h w"],
    drawn: UInt8[Tensor, "k t 3 h w"],
    floor: UInt8[Tensor, "k t 3 h w"],
    batch_size: int,
) -> FrechetDistance:
    """The distance of drawn videos and of trivial ones from the true ones.

    Args:
        truth, drawn, floor: with their prompts, at least 2 of each.
        batch_size: videos that the network is given at once.

    Raises:
        ConfigError: fewer than 2 videos, or as of `VideoFeatures.of`.
    """
    if len(truth) < 2:
        raise ConfigError("one video", field="video_features", expected="at least 2, for a covariance")
    true = features.of(truth, batch_size)
    mean, covariance = gaussian(true)
    distances = [
        frechet_distance(mean, covariance, *gaussian(features.of(videos, batch_size)))
        for videos in (drawn, floor)
    ]
    videos, dimension = true.shape
    warning = ""
    if videos < dimension + 1:
        warning = (
            f"{videos} videos are too few for {dimension} features: the covariances are singular and the "
            "distance is too large; compare it only with others of as many videos"
        )
    return FrechetDistance(
        name=f"Frechet video distance with {features.name}",
        distance=distances[0],
        floor=distances[1],
        network=features.spec,
        sha256=features.sha256,
        videos=videos,
        frames=truth.shape[1],
        size_px=list(truth.shape[-2:]),
        features=dimension,
        input=INPUT,
        warning=warning,
    )


def gaussian(
    features: Float64[Tensor, "k d"],
) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
    """Mean and unbiased covariance (by k - 1) of at least two rows."""
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(
    mean_1: Float[Tensor, " d"],
    covariance_1: Float[Tensor, "d d"],
    mean_2: Float[Tensor, " d"],
    covariance_2: Float[Tensor, "d d"],
) -> float:
    """The squared Frechet distance between two Gaussians, 0 or above, in float64.

    Tr((S1 S2)^(1/2)) is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric,
    so that no root of a general matrix is needed and singular covariances do no harm.

    >>> one, zero = torch.eye(2), torch.zeros(2)
    >>> frechet_distance(zero, one, zero + 3, 4 * one)  # 2 * 3^2 + 2 * (2 - 1)^2
    20.0
    """
    mean_1, covariance_1, mean_2, covariance_2 = (
        each.double() for each in (mean_1, covariance_1, mean_2, covariance_2)
    )
    values, vectors = torch.linalg.eigh(covariance_1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp_min(0).sqrt().sum()
    spread = covariance_1.trace() + covariance_2.trace() - 2 * shared
    return max(0.0, float((mean_1 - mean_2).square().sum() + spread))


def _function(module: str, function: str) -> tuple[Callable[[], Any], Path | None]:
    """A function of a module or of a Python file, and the file where it is one."""
    if module.endswith(".py"):
        found = importlib.util.spec_from_file_location(f"_video_features_{Path(module).stem}", module)
        if found is None or found.loader is None:
            raise ImportError(f"{module} is no Python file")
        loaded = importlib.util.module_from_spec(found)
        sys.modules[found.name] = loaded  # where dataclasses look for the types they name
        found.loader.exec_module(loaded)
        return getattr(loaded, function), Path(module)
    make = getattr(importlib.import_module(module), function)
    source = inspect.getsourcefile(make)
    return make, Path(source) if source else None
