"""Videos in files: what they go on from, how they are drawn, stopped, continued and written."""

import dataclasses
import json
import os
import signal
import sys
from fractions import Fraction

import av
import pytest
import torch
from PIL import Image

from transframer import cli, video
from transframer.data.formats.images import load_image
from transframer.data.formats.video import write_video
from transframer.errors import CheckpointError, ConfigError, DataError, TransframerError
from transframer.frames import Frame
from transframer.predictor import FramePredictor, Memory, Samples
from transframer.training import checkpoint
from transframer.training.config import TrainConfig
from transframer.video import draw_video
from transframer.video_config import VideoConfig
from transframer.video_partial import STATE, PartialVideos
from transframer.video_prompt import Prompt, read_prompt
from transframer.video_sheet import video_sheet

PX = 16


class Total(Memory):
    """How often frames were drawn; its tensors share memory and have gaps, as those of a cache may."""

    def __init__(self):
        self.tensor = torch.zeros(2, 3, dtype=torch.int64)

    def state(self):
        return {"tensor": self.tensor, "turned": self.tensor.T, "row": self.tensor[:, 1]}

    def load(self, state):
        assert state["turned"].equal(state["tensor"].T)
        self.tensor = state["tensor"]


class Toy(FramePredictor):
    """Cold: the latest frame, 7 brighter. Warm: also noise, the oldest frame seen, and the memory's count."""

    def __init__(self):
        super().__init__()
        self.seen, self.before_call = [], lambda number: None
        self.eval()

    def collate(self, episodes):
        raise NotImplementedError

    loss = log_prob = collate

    def memory(self, window):
        return Total()

    def sample(
        self, episodes, *, samples_per_query=1, temperature=1.0, top_p=1.0, estimate="mode",
        generator=None, memory=None,
    ):  # fmt: skip
        assert not self.training
        assert samples_per_query == 1
        self.before_call(len(self.seen))
        self.seen.append([len(episode.context) for episode in episodes])
        memory.tensor += 1
        frames = []
        for episode in episodes:
            image = episode.context[-1].image.int() + 7
            if temperature:
                noise = torch.randint(0, 64, image.shape, generator=generator)
                image = image + noise + episode.context[0].image // 3 + int(memory.tensor[0, 0])
            frames.append(Frame((image % 256).to(torch.uint8), episode.query))
        none = torch.zeros(len(frames))
        return Samples(frames, none, none.long())


@pytest.fixture
def toy(monkeypatch):
    predictor = Toy()
    monkeypatch.setattr(checkpoint, "load_run", lambda path: (predictor, TrainConfig()))
    return predictor


@pytest.fixture
def encoded(monkeypatch):
    """The exact frames of each MP4 as they are handed to the encoder."""
    found = {}

    def keep(path, frames, frames_per_s):
        frames = list(frames)
        found[path.name] = torch.stack(frames)
        write_video(path, frames, frames_per_s)

    monkeypatch.setattr(video, "write_video", keep)
    return found


def picture(folder, grey=20, name="a.png", width=PX, height=PX):
    Image.new("RGB", (width, height), (grey, grey, grey)).save(folder / name)
    return str(folder / name)


def config(folder, *context, **settings):
    settings = {"out": str(folder / "clip.mp4"), "size_px": PX, "scale": 1, "frames": 5} | settings
    return VideoConfig(context or (picture(folder),), run="run", **settings)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def greys(frames):
    """The grey of each frame, whose pixels are all alike."""
    assert (frames == frames[:, :1, :1, :1]).all()
    return frames[:, 0, 0, 0].tolist()


def read_back(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def clip(path, count, rate):
    """A clip whose frame n has grey 4 n."""
    grey = torch.arange(count).mul(4).to(torch.uint8)
    write_video(path, grey.view(-1, 1, 1, 1).expand(-1, 3, 48, 32), rate)
    return str(path)


def test_an_image_becomes_a_video(tmp_path, toy, encoded):
    written = draw_video(config(tmp_path, seconds=1.5, frames=None, fps=12.5, temperature=0.0))
    assert written == [tmp_path / "clip.mp4", tmp_path / "clip.png"]
    assert names(tmp_path) == ["a.png", "clip.mp4", "clip.png"]
    count = 19  # of 18.75
    assert greys(encoded["clip.mp4"]) == [20 + 7 * n for n in range(count + 1)]
    rate, frames = read_back(tmp_path / "clip.mp4")
    assert rate == Fraction(25, 2)
    assert [frame.mean() for frame in frames] == pytest.approx([20 + 7 * n for n in range(count + 1)], abs=3)


@pytest.mark.parametrize(
    ("width", "height", "scale", "shape"),
    [(90, 60, 4, (42, 64)), (60, 90, 4, (64, 42)), (50, 50, 3, (48, 48)), (300, 1, 1, (2, 16))],
)
def test_the_video_has_the_aspect_of_the_image_and_even_sides(
    tmp_path, toy, encoded, width, height, scale, shape
):
    draw_video(config(tmp_path, picture(tmp_path, width=width, height=height), scale=scale))
    assert encoded["clip.mp4"].shape == (6, 3, *shape)
    assert read_back(tmp_path / "clip.mp4")[1][0].shape == (*shape, 3)


def test_several_images_are_all_shown_and_the_latest_are_seen(tmp_path, toy, encoded):
    images = [picture(tmp_path, grey, f"{grey}.png") for grey in (30, 10, 40, 25)]
    draw_video(config(tmp_path, *images, frames=3, temperature=0.0))
    assert greys(encoded["clip.mp4"]) == [30, 10, 40, 25, 32, 39, 46]
    assert toy.seen == [[3], [3], [3]]  # the window of the task
    draw_video(config(tmp_path, *images, frames=1, temperature=0.0, prompt_frames=2, window=5))
    assert greys(encoded["clip.mp4"]) == [30, 10, 17]
    assert toy.seen[-1] == [2]
    draw_video(config(tmp_path, *images, frames=3, temperature=0.0, no_context=True))
    assert greys(encoded["clip.mp4"]) == [32, 39, 46]


@pytest.mark.parametrize(
    ("count", "rate", "fps", "numbers"),
    [
        (12, 30.0, 10.0, [0, 3, 6, 9]),
        (10, 25.0, 10.0, [0, 3, 5, 8]),  # at 0, 2.5, 5, 7.5: halves go up
        (5, 10.0, 10.0, [0, 1, 2, 3, 4]),
        (7, 10.0, 4.0, [0, 3, 5]),
    ],
)
def test_a_clip_is_sampled_at_the_rate_of_the_video(tmp_path, toy, encoded, count, rate, fps, numbers):
    path = clip(tmp_path / "in.mp4", count, rate)
    prompt = read_prompt([path], PX, fps)
    assert prompt.size == (48, 32)
    assert prompt.frames.float().mean((1, 2, 3)).div(4).round().tolist() == numbers
    first = read_prompt([path], PX, fps, prompt_frames=2)
    assert first.frames.equal(prompt.frames[:2])
    draw_video(config(tmp_path, path, fps=fps, scale=3, temperature=0.0, frames=2))
    assert encoded["clip.mp4"].shape == (len(numbers) + 2, 3, 48, 32)
    assert read_back(tmp_path / "clip.mp4")[0] == fps


def test_a_long_clip_is_read_in_parts(tmp_path):
    prompt = read_prompt([clip(tmp_path / "in.mp4", 50, 10.0)], PX, 10.0)
    assert prompt.frames.float().mean((1, 2, 3)).div(4).round().tolist() == list(range(50))


def test_variants_differ_and_a_seed_repeats(tmp_path, toy, encoded):
    settings = {"frames": 6, "variants": 3}
    written = draw_video(config(tmp_path, seed=3, **settings))
    assert [path.name for path in written] == ["clip-1.mp4", "clip-2.mp4", "clip-3.mp4", "clip.png"]
    assert [len(read_back(path)[1]) for path in written[:3]] == [7, 7, 7]
    first = dict(encoded)
    drawn = torch.stack([first[f"clip-{k}.mp4"] for k in (1, 2, 3)])
    assert (drawn[:, 0] == 20).all()
    for k in range(3):
        assert not drawn[k, 1:].equal(drawn[k - 1, 1:])
    draw_video(config(tmp_path, seed=3, **settings))
    assert all(encoded[name].equal(first[name]) for name in first)
    draw_video(config(tmp_path, seed=4, **settings))
    assert not any(encoded[name].equal(first[name]) for name in first)


def test_the_sheet_shows_frames_spread_over_the_time(tmp_path):
    partial = PartialVideos(tmp_path / "partial", {}, 2, PX)
    for number in range(31):
        grey = torch.tensor([number, 100 + number], dtype=torch.uint8)
        partial.append(grey.view(2, 1, 1, 1).expand(2, 3, PX, PX))
    prompt = Prompt(torch.full((2, 3, PX, PX), 200, dtype=torch.uint8), (30, 60))
    sheet = video_sheet(prompt, partial, 31, 10.0)
    assert sheet.shape == (3, 22 + 8 + 2 * (80 + 8), 8 * (160 + 8) + 8)
    for row, base in enumerate((0, 100)):
        centres = sheet[:, 22 + 4 + row * 88 + 40, 88::168]
        assert centres[0].tolist() == [200, *(base + number for number in (0, 5, 10, 15, 20, 25, 30))]


def uninterrupted(tmp_path, encoded, **settings):
    folder = tmp_path / "whole"
    folder.mkdir()
    draw_video(config(folder, **settings))
    return dict(encoded)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_continued_is_as_if_never_stopped(tmp_path, toy, encoded, capsys, number, code):
    settings = {"frames": 9, "variants": 2}
    whole = uninterrupted(tmp_path, encoded, **settings)
    toy.seen.clear()
    toy.before_call = lambda calls: os.kill(os.getpid(), number) if calls in (3, 5) else None
    for drawn in (4, 6):
        with pytest.raises(SystemExit) as stopped:
            draw_video(config(tmp_path, **settings))
        assert stopped.value.code == code
        assert f"saved after {drawn} of 9 frames; the same command goes on" in capsys.readouterr().out
        assert names(tmp_path) == ["a.png", "clip.mp4.partial", "whole"]
    encoded.clear()
    draw_video(config(tmp_path, **settings))
    assert "going on after 6 of 9 frames" in capsys.readouterr().out
    assert len(toy.seen) == 9
    assert all(encoded[name].equal(whole[name]) for name in whole)
    assert names(tmp_path) == ["a.png", "clip-1.mp4", "clip-2.mp4", "clip.png", "whole"]


def test_ctrl_c_on_the_command_line(tmp_path, toy, monkeypatch):
    toy.before_call = lambda calls: os.kill(os.getpid(), signal.SIGINT)
    words = [
        "video",
        "--run",
        "run",
        picture(tmp_path),
        "--out",
        str(tmp_path / "b" / "clip.mp4"),
        "--size-px",
        "16",
    ]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 130
    toy.before_call = lambda calls: None
    assert cli.main([*words, "--fps", "8"]) == 0
    assert len(read_back(tmp_path / "b" / "clip.mp4")[1]) == 1 + 24


@pytest.mark.parametrize("save_every_s", [0.0, 1e9])
def test_frames_after_the_last_state_are_drawn_again(tmp_path, toy, encoded, monkeypatch, save_every_s):
    """A process that dies leaves frames that its state does not know of, or no state at all."""
    whole = uninterrupted(tmp_path, encoded)
    toy.seen.clear()
    save = PartialVideos.save
    monkeypatch.setattr(video, "SAVE_EVERY_S", save_every_s)

    def fail(calls):
        if calls == 3:
            raise MemoryError

    toy.before_call = fail
    calls = []
    monkeypatch.setattr(
        PartialVideos, "save", lambda self, state: calls.append(0) or (len(calls) < 3 and save(self, state))
    )
    with pytest.raises(MemoryError):
        draw_video(config(tmp_path))
    partial = tmp_path / "clip.mp4.partial"
    assert (partial / "video-1.rgb").stat().st_size == 3 * 3 * PX**2
    assert (partial / STATE).exists() == (save_every_s == 0.0)
    monkeypatch.setattr(PartialVideos, "save", save)
    toy.seen.clear()
    toy.before_call = lambda calls: None
    draw_video(config(tmp_path))
    assert len(toy.seen) == (3 if save_every_s == 0.0 else 5)
    assert encoded["clip.mp4"].equal(whole["clip.mp4"])


def stop_after(toy, calls):
    toy.before_call = lambda number: os.kill(os.getpid(), signal.SIGINT) if number == calls - 1 else None


OTHER = {
    "seed": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "window": 2,
    "size_px": 32,
    "variants": 2,
}


@pytest.mark.parametrize("name", [*OTHER, "context", "run"])
def test_other_settings_do_not_go_on_with_these_frames(tmp_path, toy, name):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    first = dataclasses.replace(config(tmp_path), run=str(run))
    stop_after(toy, 2)
    with pytest.raises(SystemExit):
        draw_video(first)
    if name == "context":
        picture(tmp_path, 21)
    if name == "run":
        (run / "model.safetensors").write_text("other weights")
    other = dataclasses.replace(first, **({name: OTHER[name]} if name in OTHER else {}))
    # the context is as the model sees it; several videos are drawn, one is an estimate
    both = {"size_px": "context, size_px", "variants": "temperature, variants"}
    named = both.get(name, name)
    with pytest.raises(ConfigError, match=rf"with another {named}\n.*--restart") as refused:
        draw_video(other)
    assert refused.value.file == tmp_path / "clip.mp4.partial"
    toy.seen.clear()
    toy.before_call = lambda calls: None
    draw_video(dataclasses.replace(other, restart=True))
    assert len(toy.seen) == 5
    assert not (tmp_path / "clip.mp4.partial").exists()


def test_a_stopped_video_may_become_longer_or_shorter(tmp_path, toy, encoded):
    whole = uninterrupted(tmp_path, encoded, frames=8)["clip.mp4"]
    for frames, drawn in ((8, 8), (3, 4)):
        toy.seen.clear()
        stop_after(toy, 4)
        with pytest.raises(SystemExit):
            draw_video(config(tmp_path, frames=6))
        draw_video(config(tmp_path, frames=frames))
        assert len(toy.seen) == drawn
        assert encoded["clip.mp4"].equal(whole[: 1 + frames])


@pytest.mark.parametrize("name", ["settings.json", STATE, "video-1.rgb"])
@pytest.mark.parametrize("content", [None, b"", b"no such thing"])
def test_damaged_frames_of_a_stopped_command_are_told(tmp_path, toy, name, content):
    stop_after(toy, 2)
    with pytest.raises(SystemExit):
        draw_video(config(tmp_path))
    path = tmp_path / "clip.mp4.partial" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    if name == STATE and content is None:  # as if killed before the first was saved: nothing is lost
        draw_video(config(tmp_path))
        assert len(toy.seen) == 2 + 5
        return
    with pytest.raises(DataError, match=r"damaged or missing[^\n]*\nadd --restart") as told:
        draw_video(config(tmp_path))
    assert told.value.file == path


def test_memory_is_flat(tmp_path, toy, monkeypatch):
    """No more than the window is seen and kept, however many frames are drawn; and none while encoding."""
    sizes = []
    save = PartialVideos.save

    def noted(self, state):
        sizes.append({name: tuple(tensor.shape) for name, tensor in state.items()})
        save(self, state)

    monkeypatch.setattr(PartialVideos, "save", noted)
    monkeypatch.setattr(video, "SAVE_EVERY_S", 0.0)
    read, frame = [], PartialVideos.frame
    monkeypatch.setattr(
        PartialVideos, "frame", lambda self, *place: read.append(place) or frame(self, *place)
    )
    at_once = []

    def encode(path, frames, frames_per_s):
        for place, _ in enumerate(frames):
            at_once.append(len(read) - place)

    monkeypatch.setattr(video, "write_video", encode)
    draw_video(config(tmp_path, frames=60))
    assert toy.seen == [[1], [2], *[[3]] * 58]
    assert len(sizes) == 60
    assert sizes[2:] == sizes[2:3] * 58
    assert sizes[-1]["images"] == (1, 3, 3, PX, PX)
    assert max(at_once) <= 1


def test_a_log_file_gets_lines(tmp_path, toy, monkeypatch, capsys):
    monkeypatch.setattr(video, "LINE_EVERY_S", 0.0)
    draw_video(config(tmp_path, frames=2, variants=2))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["1 of 2 frames", "2 of 2 frames"]
    assert all(line.endswith(" s a frame, 2 videos side by side") for line in lines[:2])
    assert lines[2:] == [
        "clip-1.mp4, clip-2.mp4: frames: 1 given, 2 drawn, 10 a second; clip.png shows some of them"
    ]


@pytest.mark.parametrize(
    ("settings", "context", "message"),
    [
        ({"task": "video_predictio"}, ["a.png"], "did you mean 'video_prediction'"),
        ({"task": "depth_estimation"}, ["a.png"], "does not predict the next frame"),
        ({"task": "super_resolution"}, ["a.png"], "does not predict the next frame"),
        ({"task": "optical_flow"}, ["a.png"], "optical_flow for 1 images"),
        ({"task": "view_synthesis"}, ["a.png"], "needs cameras, query_camera beside the images"),
        ({"window": 33}, ["a.png"], "window: 33\nexpected 1 to 32"),
        ({"prompt_frames": 2}, ["a.png"], "at most the 1 frames given"),
        ({"prompt_frames": 6}, ["in.mp4"], "at most the 5 frames in .*in.mp4 at 10 frames a second"),
        ({"fps": 20.0}, ["in.mp4"], "has 10 frames a second\nexpected at most 10"),
        ({}, ["a.png", "wide.png"], "images of different sizes: 16 x 16, 32 x 16"),
        ({}, ["in.mp4", "a.png"], "in.mp4 beside other files"),
        ({}, ["none.png"], "none.png: no such file"),
        ({}, ["text.png"], "text.png: not an image"),
        ({}, ["text.mp4"], "text.mp4: cannot be read as a video"),
        ({}, ["empty.mp4"], "empty.mp4: cannot be read as a video"),
        ({"device": "abacus"}, ["a.png"], "'abacus' is no device"),
        ({"out": "text.png/clip.mp4"}, ["a.png"], "text.png: is no folder that can be written to"),
        ({"out": "folder.mp4"}, ["a.png"], "folder.mp4: is a folder"),
        ({"out": "a.mp4"}, ["a.png"], "a.png: would be replaced, and is given"),
        ({"out": "folder.mp4/../in.mp4"}, ["in.mp4"], "in.mp4: would be replaced, and is given"),
    ],
)
def test_wrong_input_is_told_before_the_model_is_loaded(tmp_path, monkeypatch, settings, context, message):
    monkeypatch.setattr(checkpoint, "load_run", lambda path: pytest.fail("loaded"))
    picture(tmp_path)
    picture(tmp_path, name="wide.png", width=32)
    clip(tmp_path / "in.mp4", 5, 10.0)
    (tmp_path / "folder.mp4").mkdir()
    for name, text in (("text.png", "x"), ("text.mp4", "x"), ("empty.mp4", "")):
        (tmp_path / name).write_text(text)
    before = names(tmp_path)
    if "out" in settings:
        settings = settings | {"out": str(tmp_path / settings["out"])}
    with pytest.raises(TransframerError, match=message):
        draw_video(config(tmp_path, *(str(tmp_path / name) for name in context), **settings))
    assert names(tmp_path) == before


def test_a_run_that_is_none_leaves_nothing(tmp_path):
    settings = config(tmp_path, out=str(tmp_path / "new" / "clip.mp4"))
    with pytest.raises(CheckpointError, match="neither a run folder nor a model"):
        draw_video(dataclasses.replace(settings, run=str(tmp_path)))
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0.0, "frames": None}, "seconds: 0.0"),
        ({"fps": float("nan")}, "fps: nan"),
        ({"fps": 0.1, "frames": None}, "3 s at 0.1 frames a second are no frame"),
        ({"frames": 0}, "frames: 0"),
        ({"seconds": 1.0}, "given beside seconds"),
        ({"variants": 0}, "variants: 0"),
        ({"variants": 2, "temperature": 0.0}, "2 variants at temperature 0"),
        ({"temperature": -1.0}, "temperature: -1"),
        ({"top_p": 0.0}, "top_p: 0"),
        ({"size_px": 20}, "size_px: 20"),
        ({"scale": 0}, "scale: 0"),
        ({"out": "clip.avi"}, "ends in .mp4"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **settings)


def test_without_pyav(tmp_path, toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"transframer\[video\]"):
        draw_video(config(tmp_path))
    assert not toy.seen


def test_a_rate_that_is_not_known(tmp_path, monkeypatch):
    path = clip(tmp_path / "in.mp4", 3, 10.0)
    from transframer.data.formats.video import VideoFacts, VideoFile

    monkeypatch.setattr(VideoFile, "facts", VideoFacts(3, None, (48, 32)))
    with pytest.raises(DataError, match="the frame rate is not known"):
        read_prompt([path], PX, 10.0)


def test_existing_files_are_replaced(tmp_path, toy):
    for name in ("clip.mp4", "clip.png"):
        (tmp_path / name).write_text("old")
    draw_video(config(tmp_path))
    assert len(read_back(tmp_path / "clip.mp4")[1]) == 6
    assert load_image(tmp_path / "clip.png").shape[0] == 3


def test_stored_settings_name_everything_that_frames_depend_on(tmp_path, toy):
    stop_after(toy, 1)
    with pytest.raises(SystemExit):
        draw_video(config(tmp_path))
    stored = json.loads((tmp_path / "clip.mp4.partial" / "settings.json").read_text())
    assert stored["task"] == ["video_prediction", {}]
    assert stored["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert set(stored) == {*OTHER, "context", "run", "task", "device"}
