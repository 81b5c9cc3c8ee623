import gzip

import numpy as np
import pytest

from transframer.benchmarks import moving_digits as module

DOT = np.zeros((1, 28, 28), np.uint8)
DOT[0, 0, 0] = 255  # its place is the place of the digit


@pytest.fixture
def sequences():
    return module.moving_digits(DOT, 50, np.random.default_rng(0))


def places(frame):
    return {tuple(place) for place in np.argwhere(frame)}


def test_two_digits_stay_inside_and_move_at_one_speed(sequences):
    assert sequences.shape == (20, 50, 64, 64)
    assert sequences.dtype == np.uint8
    for index in range(50):
        for before, after in zip(sequences[:-1, index], sequences[1:, index], strict=True):
            assert 1 <= len(places(after)) <= 2
            for y, x in places(after):
                assert y <= 36
                assert x <= 36
                # 3.6 px on a straight way, less over a corner; each coordinate is cut to whole pixels
                nearest = min(np.hypot(y - v, x - u) for v, u in places(before))
                assert nearest <= 3.6 + np.sqrt(2)


def test_digits_go_on_straight_between_bounces(sequences):
    # Far from the borders, three positions of a lone point lie on a line up to the rounding to pixels.
    checked = 0
    for index in range(50):
        for a, b, c in zip(*(sequences[k : 18 + k, index] for k in range(3)), strict=True):
            inner = [p for p in places(b) if 5 < p[0] < 31 and 5 < p[1] < 31]
            if len(places(a)) == len(places(c)) == len(places(b)) == 2 and len(inner) == 2:
                for y, x in inner:
                    v, u = min(places(a), key=lambda p: np.hypot(p[0] - y, p[1] - x))
                    gaps = [np.abs(np.array([2 * y - v, 2 * x - u]) - p).max() for p in places(c)]
                    far = min(np.hypot(p[0] - y, p[1] - x) for p in inner if p != (y, x))
                    if far > 8:  # no mistaking one for the other
                        assert min(gaps) <= 2
                        checked += 1
    assert checked > 50


def test_overlap_shows_the_brighter_pixel():
    rng = np.random.default_rng(1)
    full = np.stack([np.full((28, 28), value, np.uint8) for value in (100, 200)])
    clips = module.moving_digits(full, 30, rng)
    assert set(np.unique(clips)) == {0, 100, 200}


def test_files_are_made_of_the_split_of_their_name(tmp_path):
    source, out = tmp_path / "mnist", tmp_path / "out"
    source.mkdir()
    for part, value, n in (("train", 50, 40), ("t10k", 250, 10)):
        images = np.full((n, 28, 28), value, np.uint8)
        header = np.array([2051, n, 28, 28], ">i4").tobytes()
        labels = np.array([2049, n], ">i4").tobytes() + bytes(n)
        with gzip.open(source / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(header + images.tobytes())
        with gzip.open(source / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(labels)
    words = ["--digits", str(source), "--out", str(out), "--train", "3", "--test", "2"]
    module.main(words)
    train, test = np.load(out / "moving_mnist_train.npy"), np.load(out / "mnist_test_seq.npy")
    assert train.shape == (20, 3, 64, 64)
    assert test.shape == (20, 2, 64, 64)
    assert train.max() == 50
    assert test.max() == 250
    module.main(words)
    assert np.array_equal(np.load(out / "mnist_test_seq.npy"), test)
