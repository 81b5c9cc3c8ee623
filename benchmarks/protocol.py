"""The stamp of a result: everything that it depends on, so that equal stamps mean equal numbers."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL
import torch
from torch import Tensor, nn

import transframer
from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.sources import Material
from transframer.predictor import FramePredictor
from transframer.rollout import window_of


def fingerprint(*values: Any) -> str:
    """SHA-256 of tensors, numbers, strings and any nesting of them in lists, mappings and dataclasses.

    >>> fingerprint([torch.zeros(2)]) == fingerprint([torch.zeros(2)])
    True
    >>> fingerprint([torch.zeros(2)]) == fingerprint([torch.zeros(1, 2)])
    False
    """
    digest = hashlib.sha256()
    _feed(digest, values)
    return digest.hexdigest()


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers, with their names, types and shapes."""
    return fingerprint(dict(sorted(model.state_dict().items())))


@functools.cache
def code_version() -> dict[str, Any]:
    """The code that measures: package version, git commit, whether files differ from it, source hash.

    The source hash also covers what git does not know: changes not yet committed, an installed wheel.
    Commit and dirty flag are None where the package does not lie in its own git checkout.
    """
    package = Path(transframer.__file__).parent
    sources = {path for path in package.rglob("*.py") if "__pycache__" not in path.parts}
    sources |= {path for name in ("tasks", "data", "benchmarks") for path in _subpackage(name).rglob("*.py")}
    files = sorted({path.resolve() for path in sources})
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    return {
        "version": transframer.__version__,
        "commit": _git(package, "rev-parse", "HEAD") if tracked else None,
        "dirty": bool(_git(package, "status", "--porcelain", "-uno")) if tracked else None,
        "source_sha256": fingerprint([(file.name, file.read_text()) for file in files]),
    }


def _source_of(task: type[Task]) -> str | None:
    """A hash of the task's file, and of what else is imported of its package where that is not this one."""
    file = inspect.getsourcefile(task)
    package = task.__module__.partition(".")[0]
    if file is None or package == "transframer":  # all of which is in `code_version`
        return fingerprint(Path(file).read_text()) if file else None
    imported = [each for name, each in sys.modules.items() if name.partition(".")[0] == package]
    sources = [getattr(each, "__file__", None) for each in imported]
    files = {Path(source) for source in (file, *sources) if source}
    return fingerprint([path.read_text() for path in sorted(files) if path.suffix == ".py"])


def stamp(
    material: Material,
    predictor: FramePredictor,
    weights_sha256: str,
    config: BenchmarkConfig,
    device: torch.device,
    features: Mapping[str, Any] | None = None,
    specialist: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a result depends on, as JSON values; timings are not part of it.

    Args:
        weights_sha256: of `predictor`, hashed once for all tasks.
        device: the device that is measured on.
        features: what names the network that videos are compared by, where they are.
        specialist: the facts of the network that the model is compared with, where it is.
    """
    task, samples, episodes = material.task, material.samples, material.episodes
    codecs = {str(dataclasses.astuple(e.query.codec)): dataclasses.asdict(e.query.codec) for e in episodes}
    sampling = config.sampling(task.draws)
    record: dict[str, Any] = {
        "task": task.name,
        "task_class": f"{type(task).__module__}:{type(task).__qualname__}",
        "task_settings": dataclasses.asdict(task),
        "task_source_sha256": _source_of(type(task)),
        "data": {
            **material.description,
            "n": len(samples),
            "seed": config.seed,
            "fingerprint": fingerprint(episodes, samples),
        },
        "floor": {
            "split": material.floor_split,
            "n": len(material.floor_samples),
            "fingerprint": fingerprint(material.floor_samples),
        },
        "codec": [codecs[key] for key in sorted(codecs)],
        "sampling": {
            "temperature": sampling.temperature,
            "top_p": config.top_p,
            "estimate": task.estimate,
            "samples_per_query": sampling.samples_per_query,
            "batch_size": config.batch_size,
            "seed": config.seed,
        },
        "model": {
            "class": f"{type(predictor).__module__}:{type(predictor).__qualname__}",
            "parameters": sum(p.numel() for p in predictor.parameters()),
            "weights_sha256": weights_sha256,
            "likelihood": predictor.likelihood,
        },
        "code": code_version(),
        "machine": {
            "device": device_name(device),
            "torch": str(torch.__version__),
            "python": ".".join(map(str, sys.version_info[:3])),
            "threads": torch.get_num_threads(),
        },
    }
    if material.videos is not None:
        record["rollout"] = {
            "videos": len(material.videos),
            "frames": config.rollout_frames,
            "prompt_frames": material.videos.shape[1] - config.rollout_frames,
            "window": window_of(task),
            "temperature": config.rollout_temperature,
            "top_p": config.top_p,
            "fingerprint": fingerprint(material.videos),
            "features": features,
        }
    if getattr(predictor, "autoencoder", None) is not None:
        record["jpeg"] = f"Pillow {PIL.__version__}"  # what the autoencoder is compared with
    if specialist is not None:
        record["specialist"] = dict(specialist)
    return json.loads(json.dumps(record, default=str))  # tuples become lists, as they will when read back


def digest(protocol: Mapping[str, Any]) -> str:
    """A short name for a stamp: 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]


def device_name(device: torch.device) -> str:
    """The device as a reader wants it: the GPU's own name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        _feed(digest, {name: getattr(value, name) for name in names})
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)} ".encode())
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, (list, tuple)):
        digest.update(f"sequence {len(value)} ".encode())
        for item in value:
            _feed(digest, item)
    elif value is None or isinstance(value, (str, int, float)):
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)} ".encode() + text)
    else:
        _feed(digest, torch.as_tensor(value))  # NumPy arrays and scalars


def _subpackage(name: str) -> Path:
    spec = __import__(f"transframer.{name}", fromlist=["__path__"])
    return Path(next(iter(spec.__path__)))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
