import os
import pickle
import sys
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from transframer.data.formats.video import VideoFile, write_video
from transframer.errors import ConfigError, DataError

SIZE = (64, 96)
# Containers and codecs, with frames that are predicted from later ones where the codec can.
KINDS = {
    "h264.mp4": ("libx264", "yuv420p", {"g": "12", "bf": "3"}),
    "open_gop.m4v": ("libx264", "yuv420p", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "h264.avi": ("libx264", "yuv420p", {"g": "12", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "12", "bf": "2"}),
    "jpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mpeg4.mov": ("mpeg4", "yuv420p", {"g": "10"}),
    "h264.mkv": ("libx264", "yuv420p", {"g": "12", "bf": "3"}),
    "vp8.webm": ("libvpx", "yuv420p", {"g": "16", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "16", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "plain.gif": ("gif", "rgb8", {}),
}


def numbered(number):
    """A frame with its number in eight black or white stripes, which every codec keeps."""
    height, width = SIZE
    image = np.zeros((height, width, 3), np.uint8)
    for bit in range(8):
        image[:, bit * width // 8 : (bit + 1) * width // 8] = 255 * (number >> bit & 1)
    return image


def numbers_of(frames):
    stripes = frames[:, 1, SIZE[0] // 2].view(len(frames), 8, -1).float().mean(-1) > 127
    return (stripes * 2 ** torch.arange(8)).sum(1).tolist()


def write(path, kind, count=60):
    codec, pixels, options = KINDS[kind]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10 if codec == "gif" else Fraction(30000, 1001))
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.options = pixels, options
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_frames_by_number(tmp_path, kind):
    """Each number stands in the picture, so that a frame next to the right one is told from it."""
    video = VideoFile(write(tmp_path / kind, kind))
    assert len(video) == 60
    assert video.facts.size_px == SIZE
    assert video.facts.frames_per_s == pytest.approx(10 if kind == "plain.gif" else 29.97, rel=1e-3)
    for numbers in ([0], [59], [13], [37, 12, 48, 12], [58, 59], list(range(9, 16)), list(range(60))):
        assert numbers_of(video.frames(numbers)) == numbers


@pytest.mark.parametrize("kind", ["h264.mp4", "h264.mkv", "vp9.webm"])
def test_late_frames_are_found_without_decoding_the_early_ones(tmp_path, kind, monkeypatch):
    video = VideoFile(write(tmp_path / kind, kind))
    decoded = []
    from transframer.data.formats import video as module

    monkeypatch.setattr(module, "_taken", lambda frames, wanted: decoded.append(wanted) or {})
    assert numbers_of(video.frames([55])) == [55]
    assert not decoded


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path):
    source = write(tmp_path / "source.mp4", "h264.mp4")
    with (
        av.open(str(source)) as read,
        av.open(
            str(tmp_path / "cut.mp4"), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}
        ) as written,
    ):
        stream = written.add_stream_from_template(read.streams.video[0])
        packets = [packet for packet in read.demux(video=0) if packet.size]
        stamps = sorted(packet.pts for packet in packets)
        for packet in packets:
            packet.pts -= stamps[5]
            packet.dts -= stamps[5]
            packet.stream = stream
            written.mux(packet)
    video = VideoFile(tmp_path / "cut.mp4")
    assert len(video) == 55
    assert numbers_of(video.frames([0, 20, 54])) == [5, 25, 59]


def test_frames_of_uneven_duration_go_by_number(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"g": "5"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number * number + 7 * number, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video = VideoFile(tmp_path / "a.mp4")
    assert numbers_of(video.frames(list(range(30)))) == list(range(30))


def test_pickled_before_and_after_reading(tmp_path):
    video = VideoFile(write(tmp_path / "a.mp4", "h264.mp4", 20))
    before = pickle.loads(pickle.dumps(video))
    assert numbers_of(before.frames([7])) == [7]
    assert numbers_of(pickle.loads(pickle.dumps(before)).frames([9])) == [9]


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (32, 51)])
def test_written_and_read_again(tmp_path, size):
    """A smooth picture survives the codec; even an odd size is kept."""
    ramp = torch.linspace(20, 230, size[1])[None, :].expand(size)
    frames = torch.stack([torch.stack([ramp, ramp.flip(1), ramp * 0 + 10 * n]) for n in range(12)])
    write_video(tmp_path / "a.mp4", frames.to(torch.uint8), 12.5)
    video = VideoFile(tmp_path / "a.mp4")
    assert len(video) == 12
    assert video.facts.frames_per_s == 12.5
    found = video.frames(list(range(12)))
    assert found.shape == frames.shape
    assert (found.float() - frames).abs().mean() < 3
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_frames_are_taken_one_by_one_and_none_is_kept(tmp_path):
    frames = torch.arange(20).mul(10).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, *SIZE)
    alive = []

    def some():
        for frame in frames:
            own = frame.clone()
            alive.append(weakref.ref(own))
            yield own
            del own
            assert sum(ref() is not None for ref in alive) <= 2

    write_video(tmp_path / "a.mp4", some())
    write_video(tmp_path / "b.mp4", frames)
    assert len(alive) == 20
    # Of the pixels, not the files: on a busy machine the encoder's threads may take other decisions.
    one, other = (VideoFile(tmp_path / name).frames(range(20)).int() for name in ("a.mp4", "b.mp4"))
    assert (one - other).abs().max() <= 4
    assert (one - frames.int()).abs().max() <= 8


@pytest.mark.parametrize(("sizes", "message"), [([], "no frame"), ([32, 32, 48], "several sizes")])
def test_frames_that_make_no_video(tmp_path, sizes, message):
    with pytest.raises(DataError, match=rf"a.mp4: {message}|a.mp4: frames of {message}"):
        write_video(tmp_path / "a.mp4", (torch.zeros(3, s, s, dtype=torch.uint8) for s in sizes))
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_failed_write(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        write_video(tmp_path / "none" / "a.mp4", torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["h264.mp4", "mpeg4.avi", "vp9.webm", "h264.mkv", "plain.gif"])
def test_truncated_anywhere_is_an_error_that_names_it_or_shorter(tmp_path, kind):
    content = write(tmp_path / kind, kind).read_bytes()
    cut = tmp_path / f"cut_{kind}"
    failed = 0
    for share in (0.0, 0.01, 0.05, 0.2, 0.5, 0.8):
        cut.write_bytes(content[: int(len(content) * share)])
        try:
            video = VideoFile(cut)
            last = len(video) - 1
            middle, end = numbers_of(video.frames([last // 2, last]))
            assert middle == last // 2
            # A GIF that is cut off inside its last frame shows as much of that as there is; and frames that
            # are predicted from later ones come after these: a cut can take them and leave the last.
            assert last <= end <= last + 3 or kind == "plain.gif"
            assert last < 59
        except DataError as error:
            assert cut.name in str(error)  # noqa: PT017
            failed += 1
    assert failed >= 2


def test_other_files(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name in ("none.mp4", "text.mp4", "sound.mp4", ""):
        with pytest.raises(DataError, match=name or str(tmp_path)):
            len(VideoFile(tmp_path / name))


def test_too_large_is_refused_before_decoding(tmp_path):
    path = write(tmp_path / "a.mp4", "h264.mp4", 3)
    assert len(VideoFile(path, max_pixels=64 * 96)) == 3
    with pytest.raises(DataError, match="96 x 64"):
        len(VideoFile(path, max_pixels=64 * 96 - 1))


def test_numbers_out_of_range(tmp_path):
    video = VideoFile(write(tmp_path / "a.mp4", "h264.mp4", 3))
    for numbers in ([3], [-1], []):
        with pytest.raises(IndexError):
            video.frames(numbers)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"transframer\[video\]"):
        len(VideoFile(tmp_path / "a.mp4"))
