import dataclasses

import torch

from transframer.benchmarks.picture_grid import picture_grid
from transframer.benchmarks.pictures import data_uri


def grey(level, side=16):
    return data_uri(torch.full((3, side, side), level, dtype=torch.uint8))


def tile_middle(grid, row, column):
    """The grey level in the middle of a tile: 128 px, 6 between two, names of 20 px above each row."""
    y, x = 20 + row * 154 + 20 + 64, 6 + column * 134 + 64
    return int(grid[0, y, x])


def test_a_row_per_task_shows_its_median_sample(toy_benchmark):
    (result,) = toy_benchmark()
    own = next(picture for picture in result.pictures if picture.chosen_as == "median")
    shown = dataclasses.replace(
        own,
        context=[grey(10), grey(20)],
        truth=grey(30),
        model=grey(40, 300),
        floor=grey(50),
        ceiling=grey(60),
    )
    pictures = [shown if picture is own else picture for picture in result.pictures]
    first = dataclasses.replace(result, pictures=pictures)
    one_frame = dataclasses.replace(shown, context=[grey(15)], specialist=grey(45))
    grid = picture_grid([first, dataclasses.replace(result, pictures=[one_frame])])
    assert grid.shape == (3, 20 + 2 * 154, 6 + 7 * 134)
    # two frames of context, truth, model, specialist, floor, ceiling; white where there is nothing
    assert [tile_middle(grid, 0, column) for column in range(7)] == [10, 20, 30, 40, 255, 50, 60]
    assert [tile_middle(grid, 1, column) for column in range(7)] == [15, 255, 30, 40, 45, 50, 60]


def test_without_specialists_there_is_no_column_of_them(toy_benchmark):
    (result,) = toy_benchmark()
    assert picture_grid([result]).shape[2] == 6 + (len(result.pictures[0].context) + 4) * 134
