"""Prediction on people's own images: geometry, formats of input, order of checks, files written."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from transframer import cli
from transframer.answers import answer_samples, draw
from transframer.data.formats.cameras import write_cameras
from transframer.data.formats.images import load_image
from transframer.data.formats.png16 import read_depth_png
from transframer.errors import CheckpointError, ConfigError, DataError
from transframer.frames import Camera, Frame
from transframer.models.presets import TransframerConfig
from transframer.models.transframer import Transframer
from transframer.predict import predict, predict_files
from transframer.predict_config import PredictConfig
from transframer.predictor import FramePredictor, Samples
from transframer.progressive import progressive_steps
from transframer.registry import get_task
from transframer.training import checkpoint
from transframer.training.config import TrainConfig

DEPTH = get_task("depth_estimation")


@dataclass(eq=False)
class Echo(FramePredictor):
    """Predicts the last context image, plus noise if it is warm; remembers what it was asked."""

    def __post_init__(self):
        super().__init__()
        self.asked = []

    def collate(self, episodes):
        raise NotImplementedError

    loss = log_prob = collate

    def sample(
        self,
        episodes,
        *,
        samples_per_query=1,
        temperature=1.0,
        top_p=1.0,
        estimate="mode",
        generator=None,
    ):
        self.asked.append([episode for episode in episodes for _ in range(samples_per_query)])
        frames = []
        for episode in self.asked[-1]:
            assert episode.target is None
            image = episode.context[-1].image
            noise = torch.randint(0, 40, image.shape, generator=generator) if temperature else 0
            frames.append(Frame((image.int() + noise).clamp(0, 255).to(torch.uint8), episode.query))
        none = torch.zeros(len(frames))
        return Samples(frames, none, none.long())


@pytest.fixture
def echo(monkeypatch):
    predictor = Echo()
    monkeypatch.setattr(checkpoint, "load_run", lambda path: (predictor, TrainConfig()))
    return predictor


def halves(width=90, height=60, mode="RGB"):
    """Black on the left, white on the right: far and near for depth_estimation."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    return Image.fromarray(pixels).convert(mode)


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_prediction_in_a_few_lines():
    image = torch.from_numpy(np.array(halves(300, 200))).permute(2, 0, 1)
    depth_m = predict(Echo(), DEPTH, [image], size_px=64)
    assert depth_m.shape == (64, 64)
    assert depth_m[:, :30].mean() == pytest.approx(DEPTH.max_depth_m, rel=0.05)
    assert depth_m[:, -30:].mean() == pytest.approx(DEPTH.min_depth_m, rel=0.05)


class Knower(Echo):
    """The likelihood of a class's frame is all that it knows: 1 to 3 for the lit blocks 0 to 2, else 1."""

    def log_prob(self, episodes):
        lit = [e.target.image[0].reshape(-1).argmax().item() // 8 for e in episodes]
        return torch.tensor([min(block, 2) + 1.0 if block < 3 else 1.0 for block in lit]).log()


def test_a_class_is_answered_by_its_exact_posterior_without_drawing():
    task, knower = get_task("image_classification"), Knower()
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    probability = predict(knower, task, [image], size_px=64)
    n = len(task.classes)
    assert probability.tolist() == pytest.approx([w / (6 + n - 3) for w in [1, 2, 3] + [1] * (n - 3)])
    assert not knower.asked
    predict(knower, task, [image], size_px=64, samples_per_query=2, temperature=1.0)
    assert [len(rows) for rows in knower.asked] == [2], "samples are drawn where samples are asked for"


def test_boxes_have_their_scores_from_the_draws_that_the_task_wants():
    task, image = get_task("object_detection"), torch.full((3, 64, 64), 128, dtype=torch.uint8)
    echo = Echo()
    predict(echo, task, [image])
    predict(echo, task, [image], temperature=0.0)
    predict(echo, task, [image], samples_per_query=3)
    assert [len(rows) for rows in echo.asked] == [task.draws, 1, 3] == [32, 1, 3]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize(("width", "height"), [(90, 60), (61, 200), (500, 31), (1, 1)])
def test_outputs_cover_the_whole_image_at_its_own_size(tmp_path, echo, suffix, width, height):
    path = tmp_path / f"photo.{suffix}"
    halves(width, height).save(path)
    written = predict_files(PredictConfig((str(path),), "depth_estimation", str(tmp_path / "out"), "run"))
    stem = "photo_depth_estimation"
    assert files(tmp_path / "out") == [f"{stem}.npy", f"{stem}.png", f"{stem}_picture.png"]
    assert sorted(path.name for path in written) == files(tmp_path / "out")
    depth = np.load(tmp_path / "out" / f"{stem}.npy")
    assert depth.shape == (height, width)
    millimetres = read_depth_png(tmp_path / "out" / f"{stem}.png")
    assert np.allclose(millimetres, depth.clip(max=65.535), atol=1e-3)
    if width > 1:
        assert np.median(depth[:, : width // 4]) > 5 * np.median(depth[:, -width // 4 :])
    picture = load_image(tmp_path / "out" / f"{stem}_picture.png")
    assert picture.shape[2] / picture.shape[1] == pytest.approx(2 * width / height, rel=0.1)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "CMYK"])
def test_any_colour_mode(tmp_path, echo, mode):
    path = tmp_path / "photo.tiff"
    halves(mode="L" if mode == "LA" else "RGB").convert(mode).save(path)
    predict_files(PredictConfig((str(path),), "depth_estimation", str(tmp_path), "run"))
    seen = echo.asked[0][0].context[0].image
    assert seen[:, :, :28].float().mean() < 10
    assert seen[:, :, -28:].float().mean() > 245


def test_an_image_is_turned_upright_by_its_exif_tag(tmp_path, echo):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    halves(90, 60).save(tmp_path / "photo.jpg", exif=exif)
    predict_files(PredictConfig((str(tmp_path / "photo.jpg"),), "depth_estimation", str(tmp_path), "run"))
    depth = np.load(tmp_path / "photo_depth_estimation.npy")
    assert depth.shape == (90, 60)
    assert depth[:30].mean() > 5 * depth[60:].mean()


def test_a_folder_gives_a_prediction_for_each_image_in_it(tmp_path, echo):
    for name, size in (("a.png", (40, 40)), ("b.JPG", (40, 20)), ("c.webp", (44, 40))):
        halves(*size).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    predict_files(PredictConfig((str(tmp_path),), "depth_estimation", str(tmp_path / "out"), "run"))
    assert [name for name in files(tmp_path / "out") if name.endswith("npy")] == [
        f"{letter}_depth_estimation.npy" for letter in "abc"
    ]
    assert len(echo.asked) == 1, "images of any size go through the model together"


def test_frames_of_a_folder_are_taken_as_people_count_them(tmp_path, echo):
    """10 comes after 2; and what macOS leaves beside them is no frame."""
    for number in (1, 2, 9, 10, 11):
        Image.new("RGB", (16, 16), (10 * number,) * 3).save(tmp_path / f"{number}.png")
    (tmp_path / "._1.png").write_bytes(b"resource fork")
    predict_files(PredictConfig((str(tmp_path),), "video_prediction", str(tmp_path / "out"), "run"))
    ((episode,),) = echo.asked
    assert [int(frame.image[0, 0, 0]) for frame in episode.context] == [10, 20, 90, 100, 110]


def test_predictions_are_reproducible_and_several_samples_are_combined(tmp_path, echo):
    halves().save(tmp_path / "photo.png")

    def depth(seed):
        predict_files(
            PredictConfig(
                (str(tmp_path / "photo.png"),), "depth_estimation", str(tmp_path), "run", 5, seed=seed
            )
        )
        return np.load(tmp_path / "photo_depth_estimation.npy")

    first, again, other = depth(1), depth(1), depth(2)
    assert [len(rows) for rows in echo.asked] == [5, 5, 5]
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("task", ["depth_estimation", "semantic_segmentation"])
def test_several_samples_write_their_uncertainty_at_the_size_of_the_image(tmp_path, echo, task):
    Image.new("RGB", (90, 60), "#7c7c7c").save(tmp_path / "photo.png")  # noise takes it to either class
    predict_files(PredictConfig((str(tmp_path / "photo.png"),), task, str(tmp_path / "out"), "run", 6))
    values = np.load(tmp_path / f"out/photo_{task}_uncertainty.npy")
    assert values.shape == (60, 90)
    assert values.dtype == np.float32
    assert 0 <= values.min() < values.max()
    drawn = load_image(tmp_path / f"out/photo_{task}_uncertainty.png").sum(0).numpy()
    assert drawn[values == values.max()].min() == drawn.max()


def test_flow_is_uncertain_in_pixels_of_the_image(tmp_path, echo):
    names = [str(tmp_path / f"{letter}.png") for letter in "ab"]
    for name in names:
        halves(64, 64).save(name)
    sizes = {}
    for factor in (1, 3):
        for name in names:
            halves(64 * factor, 64 * factor).save(name)
        predict_files(PredictConfig(tuple(names), "optical_flow", str(tmp_path / "out"), "run", 4))
        sizes[factor] = np.load(tmp_path / "out/a_optical_flow_uncertainty.npy")
    assert sizes[3].shape == (192, 192)
    assert sizes[3].mean() == pytest.approx(3 * sizes[1].mean(), rel=0.05)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}])
def test_one_sample_has_no_uncertainty(tmp_path, echo, settings):
    halves().save(tmp_path / "a.png")
    out = str(tmp_path / "out")
    predict_files(PredictConfig((str(tmp_path / "a.png"),), "depth_estimation", out, "run", **settings))
    assert not any("uncertainty" in name for name in files(out))


def test_a_task_without_a_value_at_every_pixel_has_no_uncertainty(tmp_path, echo):
    halves().save(tmp_path / "a.png")
    out = str(tmp_path / "out")
    predict_files(PredictConfig((str(tmp_path / "a.png"),), "object_detection", out, "run", 3))
    assert files(out) == ["a_object_detection.json", "a_object_detection_picture.png"]


@pytest.mark.parametrize(
    ("count", "draws", "batch_size", "rows"),
    [(3, 4, 8, [8, 4]), (2, 5, 4, [4, 1, 4, 1]), (3, 1, 2, [2, 1]), (2, 3, 1, [1] * 6)],
)
def test_batch_size_counts_frames(tmp_path, echo, count, draws, batch_size, rows):
    for index in range(count):
        halves().save(tmp_path / f"{index}.png")
    out = str(tmp_path / "out")
    predict_files(
        PredictConfig((str(tmp_path),), "depth_estimation", out, "run", draws, 1.0, batch_size=batch_size)
    )
    assert [len(asked) for asked in echo.asked] == rows
    assert len([name for name in files(out) if name.endswith("picture.png")]) == count


def test_draws_of_a_query_stay_with_it(tmp_path):
    """However a batch is cut, each query gets the frames of its own episode."""
    images = [torch.full((3, 64, 64), level, dtype=torch.uint8) for level in (10, 90, 170)]
    episodes = [DEPTH.format({"images": image[None]}) for image in images]
    for batch_size in (1, 2, 4, 7, 100):
        drawn = list(
            draw(
                Echo(),
                DEPTH,
                episodes,
                samples_per_query=3,
                temperature=1.0,
                top_p=1.0,
                generator=torch.Generator().manual_seed(0),
                batch_size=batch_size,
            )
        )
        assert len(drawn) == 3
        for image, draws in zip(images, drawn, strict=True):
            assert len(draws.frames) == len(draws.tokens) == 3
            assert draws.grid is None
            for frame in draws.frames:
                noise = frame.image.int() - image.int()
                assert noise.min() >= 0
                assert noise.max() < 40


def test_a_predictor_that_tells_no_coefficients_cannot_show_progress(tmp_path, echo):
    halves().save(tmp_path / "a.png")
    config = PredictConfig(
        (str(tmp_path / "a.png"),), "depth_estimation", str(tmp_path / "out"), "run", progressive=True
    )
    with pytest.raises(ConfigError) as caught:
        predict_files(config)
    assert str(caught.value).splitlines() == [
        "--progressive: the model does not tell the coefficients of the frames that it draws",
        "expected a predictor whose Samples have a grid",
        "leave --progressive out",
    ]
    assert files(tmp_path / "out") == []


def test_an_exact_posterior_has_no_progress_to_show(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_run", lambda path: pytest.fail("the model was loaded"))
    halves().save(tmp_path / "a.png")
    config = PredictConfig((str(tmp_path / "a.png"),), "image_classification", "out", "run", progressive=True)
    with pytest.raises(ConfigError, match=r"exact posterior.*\nexpected .*\nadd --temperature 1"):
        predict_files(config)


@pytest.mark.parametrize(
    ("task", "names", "settings", "error", "message"),
    [
        ("depth_estimation", ["broken.png"], {}, DataError, "broken.png: not an image"),
        ("depth_estimation", ["a.png", "cut.png"], {}, DataError, "cut.png: cannot be read"),
        ("depth_estimation", ["huge.png"], {}, DataError, "an image of 10000 x 10000 pixels"),
        ("depth_estimation", ["missing.png"], {}, DataError, "missing.png: no such file"),
        ("depth_estimation", ["empty"], {}, DataError, "no image in the folder"),
        ("depth_estimation", ["a.png", "a.jpg"], {}, DataError, "2 images would be written as a_depth"),
        ("depth_estimation", ["a.png"], {"times": (0.0,)}, DataError, "does not use times"),
        ("optical_flow", ["a.png"], {}, DataError, "optical_flow for 1 images"),
        (
            "video_prediction",
            ["a.png", "b.png", "c.png"],
            {"times": (0.0, 1.0)},
            ConfigError,
            "2 times for 3",
        ),
        (
            "video_prediction",
            ["a.png", "b.png", "c.png"],
            {"times": (0.0, 1.0, 2.0), "query_time": 1.5},
            DataError,
            "a query time in the past",
        ),
        ("video_prediction", ["a.png", "b.png", "wide.png"], {}, DataError, "images of different sizes"),
        (
            "view_synthesis",
            ["a.png"],
            {},
            DataError,
            "cameras, query_camera beside the images\ngive --cameras",
        ),
        ("view_synthesis", ["a.png"], {"cameras": "a.png"}, DataError, "a.png: not a JSON file"),
    ],
)
def test_inputs_are_checked_before_the_model_is_loaded(
    tmp_path, monkeypatch, task, names, settings, error, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "load_run", lambda path: pytest.fail("the model was loaded"))
    for name in ("a.png", "a.jpg", "b.png", "c.png"):
        halves().save(name)
    halves(200, 20).save("wide.png")
    Path("broken.png").write_text("not a png")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:80])
    Path("empty").mkdir()
    png = Path("a.png").read_bytes()
    chunk = b"IHDR" + (10_000).to_bytes(4, "big") * 2 + png[24:29]
    Path("huge.png").write_bytes(png[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:])
    with pytest.raises(error, match=message):
        predict_files(PredictConfig(tuple(names), task, "out", "run", **settings))
    assert not Path("out").exists()


def test_a_run_that_is_none(tmp_path):
    halves().save(tmp_path / "a.png")
    with pytest.raises(CheckpointError, match="neither a run folder nor a model"):
        predict_files(PredictConfig((str(tmp_path / "a.png"),), "depth_estimation", "out", str(tmp_path)))


def test_several_images_are_one_query_with_their_times(tmp_path, echo):
    names = [str(tmp_path / f"{letter}.png") for letter in "abc"]
    for name in names:
        halves(96, 64).save(name)
    config = PredictConfig(
        tuple(names),
        "video_prediction",
        str(tmp_path / "out"),
        "run",
        times=(10.0, 12.0, 14.0),
        query_time=18.0,
    )
    predict_files(config)
    (episode,) = echo.asked[0]
    assert episode.size == (64, 64)
    assert [frame.annotation.time for frame in episode.context] == [-2, -1, 0]
    assert episode.query.time == 2
    assert "a_video_prediction_picture.png" in files(tmp_path / "out")
    assert load_image(tmp_path / "out/a_video_prediction.png").shape == (3, 64, 96)


def test_cameras_are_those_of_the_images_as_they_are(tmp_path, echo):
    def camera(x):
        pose = torch.eye(4)
        pose[0, 3] = x
        return Camera(torch.tensor([[100.0, 0, 48], [0, 110, 40], [0, 0, 1]]), pose)

    for name in ("left.png", "right.png"):
        halves(96, 80).save(tmp_path / name)
    write_cameras(tmp_path / "cameras.json", {"left.png": camera(0.0), "right.png": camera(1.0)}, camera(0.5))
    images = (str(tmp_path / "left.png"), str(tmp_path / "right.png"))
    predict_files(
        PredictConfig(
            images, "view_synthesis", str(tmp_path / "out"), "run", cameras=str(tmp_path / "cameras.json")
        )
    )
    (episode,) = echo.asked[0]
    assert episode.size == (64, 64)
    expected = torch.tensor([[100 * 64 / 96, 0, 32], [0, 110 * 64 / 80, 32], [0, 0, 1]])
    for annotation in (*(frame.annotation for frame in episode.context), episode.query):
        assert torch.allclose(annotation.camera.intrinsics, expected)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"size_px": 40}, "size_px"),
        ({"samples_per_query": 0}, "samples_per_query"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": 0.0, "samples_per_query": 2}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
    ],
)
def test_settings_out_of_range(settings, field):
    with pytest.raises(ConfigError) as caught:
        PredictConfig(("a.png",), "depth_estimation", "out", "run", **settings)
    assert caught.value.field == field


@pytest.fixture
def saved(tmp_path):
    """A folder with a saved model of random weights, and the words that predict a photo with it."""
    torch.manual_seed(0)
    config = TransframerConfig(
        ("depth_estimation",),
        ("rgb", "depth"),
        (16,),
        (1,),
        (8, 8),
        16,
        chunk_events=16,
        chunk_overlap=4,
        heads=2,
    )
    Transframer(config).save_pretrained(tmp_path / "model")
    halves(70, 50).save(tmp_path / "photo.png")
    words = f"predict --run {tmp_path}/model --task depth_estimation {tmp_path}/photo.png"
    return f"{words} --out {tmp_path}/out --size-px 16"


def test_a_saved_model_predicts_from_the_command_line(tmp_path, saved, capsys):
    assert cli.main(saved.split()) == 0
    assert "3 files in" in capsys.readouterr().out
    assert np.load(tmp_path / "out/photo_depth_estimation.npy").shape == (50, 70)
    assert cli.main(saved.replace("depth_estimation", "video_prediction").split()) == 2


@pytest.mark.parametrize("draws", [1, 2])
def test_progressive_and_uncertainty_from_the_command_line(tmp_path, saved, draws):
    words = f"{saved} --progressive --samples-per-query {draws} --temperature 1 --seed 3"
    assert cli.main(words.split()) == 0
    out, stem = tmp_path / "out", "photo_depth_estimation"
    steps = json.loads((out / f"{stem}_progressive.json").read_text())
    assert steps[0] == {"plane": None, "zigzag": None, "triples": 0, "total": 0}
    assert len(steps) > 1
    assert [step["total"] for step in steps] == np.cumsum([step["triples"] for step in steps]).tolist()
    assert load_image(out / f"{stem}_progressive.png").shape[2] == min(8, len(steps)) * 168 + 8
    assert (out / f"{stem}_uncertainty.npy").exists() == (draws > 1)


def test_a_model_tells_the_coefficients_that_progress_needs(tmp_path, saved):
    predictor, _ = checkpoint.load_run(tmp_path / "model")
    sample = {"images": load_image(tmp_path / "photo.png")[None, :, :16, :16]}
    (answer,) = answer_samples(
        predictor,
        DEPTH,
        [sample],
        samples_per_query=3,
        temperature=1.0,
        generator=torch.Generator().manual_seed(1),
        batch_size=2,
    )
    assert len(answer.each) == len(answer.draws.frames) == len(answer.draws.grid) == 3
    for grid, tokens, frame in zip(answer.draws.grid, answer.draws.tokens, answer.draws.frames, strict=True):
        steps = progressive_steps(grid, DEPTH.format(sample))
        assert steps[-1].total == tokens
        assert (steps[-1].frame.image == frame.image).all()
