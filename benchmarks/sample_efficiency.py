"""How many labels fine-tuning saves: `python -m transframer.benchmarks.sample_efficiency --help`.

For each number of training samples two models of one architecture are trained for equal minutes at an equal
batch size, by the same code (`transframer.finetune.finetune`: its task settings, validation part, early stop,
moving average of the weights): one starts from trained weights, one from random ones. Besides the weights
only the peak learning rate may differ: from scratch it is the preset's own, and of fine-tuning it is that of
`transframer finetune`. Both are then measured on the same samples of the test part by the benchmark's
protocol (docs/benchmark.md), and compared in pairs.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transframer.benchmarks.config import BenchmarkConfig
from transframer.benchmarks.drawn import draw_all
from transframer.benchmarks.json_records import read, strict
from transframer.benchmarks.measure import scores_of
from transframer.benchmarks.protocol import stamp, weights_hash
from transframer.benchmarks.sample_efficiency_config import SampleEfficiencyConfig
from transframer.benchmarks.sample_efficiency_report import Comparison, Row, Training, write_report
from transframer.benchmarks.sources import material_for, source_for
from transframer.benchmarks.statistics import paired_bootstrap, resample_indices, resamples_for
from transframer.data.catalog import open_dataset
from transframer.data.formats.atomic import write_text
from transframer.data.subset import few_labels
from transframer.errors import ConfigError, exit_code
from transframer.finetune import finetune, train_config
from transframer.models.catalog import get_model, model_of
from transframer.options import parse
from transframer.predictor import FramePredictor
from transframer.seeds import seed_for
from transframer.task import Metric
from transframer.task_settings import configured_task
from transframer.training.checkpoint import MODEL, load_run, save_model
from transframer.training.config import TrainConfig
from transframer.training.distributed import choose_device
from transframer.training.report import METRICS

FRAMES_AT_ONCE = 64
SETTINGS, TRAINED = "settings.json", "trained.json"


@dataclass(frozen=True)
class Start:
    """What a model starts from.

    Attributes:
        weights: a folder, or the name of weights that come with the package.
        learning_rate: the peak.
    """

    weights: Path | str
    learning_rate: float


def sample_efficiency(config: SampleEfficiencyConfig) -> list[Row]:
    """Trains and measures what is not there yet; the report is written after every row.

    Returns:
        A row for each number of samples, in their order.

    Raises:
        ConfigError: more samples asked for than there are; `config.out` holds results of other settings.
        TransframerError: as of `finetune` and of a benchmark.
        SystemExit: when Ctrl-C or SIGTERM stopped a run; it starts anew when the command is given again.
    """
    device = choose_device(config.device)
    predictor, stored = load_run(config.from_)
    tuning = train_config(config.finetuning(0, config.from_, config.out), stored, [])
    sizes = _sizes(config, tuning)
    _claim(config, weights_hash(predictor))
    assert tuning.learning_rate is not None
    starts = {
        "scratch": Start(
            _untrained(config, predictor, stored), get_model(stored.model).learning_rates[stored.preset]
        ),
        "finetuned": Start(config.from_, tuning.learning_rate),
    }
    del predictor
    rows: list[Row] = []
    for n, count in sizes.items():
        path = config.out / "rows" / f"{n}-test-{config.test_samples}.json"
        if path.exists():
            row = read(Row, json.loads(path.read_text(encoding="utf-8")))
        else:
            folders = {name: config.out / "runs" / f"{n}-{name}" for name in starts}
            training = {name: _trained(config, count, folders[name], start) for name, start in starts.items()}
            row = Row(n, not count, training, *_measured(config, folders, device))
            write_text(path, json.dumps(strict(dataclasses.asdict(row)), allow_nan=False, indent=1) + "\n")
        rows.append(row)
        if _data_of(row) != _data_of(rows[0]):
            raise ConfigError(
                "a row there is of other test samples: the data have changed",
                file=path,
                field="out",
                next_step="give another --out",
            )
        text = write_report(config, rows)
    print(text)
    return rows


def _data_of(row: Row) -> str:
    return row.protocols["finetuned"]["data"]["fingerprint"]


def _sizes(config: SampleEfficiencyConfig, tuning: TrainConfig) -> dict[int, int]:
    """How many samples each row has, in their order, and what is asked for it: 0 where that is all."""
    task = configured_task(config.task, tuning.task_settings)
    dataset = open_dataset(config.data, "train", task, format=config.data_format, options=config.data_options)
    if most := max(config.samples):
        few_labels(dataset, most)  # raises now, before anything is trained, where there are not so many
    return dict(sorted((count or len(dataset), count) for count in config.samples))


def _claim(config: SampleEfficiencyConfig, weights_sha256: str) -> None:
    """Notes the settings in the folder of the results.

    Raises:
        ConfigError: it is that of other settings.
    """
    path = config.out / SETTINGS
    settings = json.loads(json.dumps({**config.of_training, "weights_sha256": weights_sha256}))
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
    differing = [name for name, value in settings.items() if known.get(name) != value]
    if differing:
        raise ConfigError(
            f"the results there are of another {', '.join(differing)}",
            file=config.out,
            field="out",
            next_step="give another --out, or the settings that settings.json there has",
        )
    write_text(path, json.dumps(settings, indent=1) + "\n")


def _untrained(config: SampleEfficiencyConfig, predictor: FramePredictor, stored: TrainConfig) -> Path:
    """A folder of random weights of the same architecture, with the settings of the trained ones."""
    folder = config.out / "untrained"
    if not (folder / MODEL).is_dir():
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(config.seed, "weights"))
            fresh: Any = get_model(model_of(predictor)).predictor_class
            save_model(folder, fresh(predictor.config), stored, step=0)
    return folder


def _trained(config: SampleEfficiencyConfig, count: int, folder: Path, start: Start) -> Training:
    """Trains a model unless that was done to its end, and says how it went."""
    done = folder / TRAINED
    if not done.exists():
        if folder.exists():  # stopped on its way: minutes that were interrupted are not equal ones
            shutil.rmtree(folder)
        finetune(config.finetuning(count, start.weights, folder, start.learning_rate))
        training = _summed_up(folder / METRICS, config.task, start.learning_rate)
        write_text(done, json.dumps(strict(dataclasses.asdict(training)), indent=1) + "\n")
    return read(Training, json.loads(done.read_text(encoding="utf-8")))


def _summed_up(metrics: Path, task: str, learning_rate: float) -> Training:
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    bits = {
        line["step"]: line["tasks"][task]["bits_per_frame"] for line in lines if line["kind"] == "validation"
    }
    kept = min(bits, key=lambda step: bits[step])
    return Training(learning_rate, lines[-1]["step"], lines[-1]["seconds"], kept, bits[kept])


@torch.no_grad()
def _measured(
    config: SampleEfficiencyConfig, folders: Mapping[str, Path], device: torch.device
) -> tuple[Metric, dict[str, Comparison], dict[str, Any]]:
    """The headline, every metric of both models on the same samples, and the benchmark's stamps of both."""
    scores: dict[str, list[Any]] = {}
    protocols: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        predictor, training = load_run(folder)
        asked = BenchmarkConfig(
            run=folder,
            tasks=[config.task],
            samples=config.test_samples,
            batch_size=FRAMES_AT_ONCE,
            data=config.data,
            data_format=config.data_format,
            data_options=config.data_options,
            device=config.device,
        )
        task = configured_task(config.task, training.task_settings)
        material = material_for(task, source_for(asked, training), asked)
        predictor = predictor.to(device).eval()
        predictions = draw_all(material, predictor, asked, device).predictions
        scores[name] = scores_of(task, predictions, material.samples)
        protocols[name] = stamp(material, predictor, weights_hash(predictor), asked, device)
    trivial = task.floor(material.floor_samples)
    floors = [trivial(episode.without_target()) for episode in material.episodes]
    floor = task.summarise(scores_of(task, floors, material.samples))
    indices = resample_indices(
        len(material.samples), resamples_for(task.summarise, scores["finetuned"]), asked.seed
    )
    tuned, scratch, difference = paired_bootstrap(
        scores["finetuned"], scores["scratch"], task.summarise, indices
    )
    metrics = {
        name: Comparison(scratch[name], tuned[name], difference[name], float(floor[name])) for name in tuned
    }
    return task.headline, metrics, protocols


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit code."""

    def run() -> None:
        config = parse(
            SampleEfficiencyConfig,
            sys.argv[1:] if argv is None else argv,
            prog="python -m transframer.benchmarks.sample_efficiency",
            description="How many labels fine-tuning saves, beside training from scratch.",
        )
        sample_efficiency(config)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
