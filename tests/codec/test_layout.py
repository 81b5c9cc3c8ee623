import pytest
import torch

from transframer.codec import (
    BANDS,
    N_CHANNELS,
    channel_band,
    channel_plane,
    channel_zigzag,
    grid_size,
    legal_mask,
    legal_positions,
)


def test_channels_run_from_coarse_to_fine():
    assert channel_plane[:12].tolist() == [0, 1, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert channel_zigzag[:12].tolist() == [0, 0, 0, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    keys = list(zip(channel_band.tolist(), channel_plane.tolist(), channel_zigzag.tolist(), strict=True))
    assert keys == sorted(keys)
    assert len({key[1:] for key in keys}) == N_CHANNELS
    assert all(BANDS[band][0] <= index < BANDS[band][1] for band, _, index in keys)


@pytest.mark.parametrize(("size", "cells"), [((1, 1), (2, 2)), ((16, 17), (2, 4)), ((64, 250), (8, 32))])
def test_grids_hold_whole_macroblocks(size, cells):
    assert grid_size(size) == cells


def test_legal_cells_of_halved_chroma_are_every_other_one():
    mask = legal_mask((4, 6), "4:2:0").view(N_CHANNELS, 4, 6)
    assert mask[channel_plane == 0].all()
    chroma = mask[channel_plane > 0]
    assert chroma[:, ::2, ::2].all()
    assert chroma.sum() == 128 * 6
    assert legal_mask((4, 6), "4:4:4").all()


def test_legal_positions_are_raster_indices():
    assert legal_positions(2, (4, 6), "4:2:0").tolist() == [0, 2, 4, 12, 14, 16]
    assert torch.equal(legal_positions(0, (4, 6), "4:2:0"), torch.arange(24))
