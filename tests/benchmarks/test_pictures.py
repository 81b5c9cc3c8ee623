import base64
import io
import math

import numpy as np
import torch
from PIL import Image

from transframer.benchmarks.pictures import choose, data_uri


def test_choice_shows_extremes_median_and_random_ones_once_each():
    scores = [0.5, math.nan, 0.9, 0.1, 0.7, 0.3, 0.2, 0.8]
    chosen = choose(scores, True, 3, seed=0)
    assert chosen[:3] == [(2, "best"), (0, "median"), (3, "worst")]
    assert [why for _, why in chosen[3:]] == ["random"] * 3
    assert len({index for index, _ in chosen}) == 6
    assert choose(scores, True, 3, seed=0) == chosen


def test_choice_where_lower_is_better():
    assert choose([3.0, 1.0, 2.0], False, 0, seed=0) == [(1, "best"), (2, "median"), (0, "worst")]


def test_choice_of_one_sample_or_of_none_to_judge():
    assert choose([1.0], True, 3, seed=0) == [(0, "best")]
    assert choose([math.nan, math.nan], True, 1, seed=0)[0][1] == "random"


def test_data_uri_holds_the_very_pixels():
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    uri = data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert (torch.from_numpy(read.copy()).permute(2, 0, 1) == image).all()
