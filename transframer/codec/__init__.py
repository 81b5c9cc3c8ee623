"""The codec: images <-> grids of quantised DCT coefficients <-> ordered triples."""

from transframer.codec.coding import (
    code_episodes,
    decode_frames,
    round_trip,
    round_trips,
    stack_references,
    token_count,
)
from transframer.codec.dct import dct_from_image, grid_from_image, image_from_grid
from transframer.codec.jpeg import grid_from_jpeg, image_from_jpeg, jpeg_size
from transframer.codec.layout import (
    BANDS,
    N_CHANNELS,
    channel_band,
    channel_plane,
    channel_zigzag,
    grid_size,
    legal_mask,
    legal_positions,
    quantisation,
)
from transframer.codec.tokens import Tokens, check_tokens, grid_from_tokens, tokens_from_grid

__all__ = [
    "BANDS",
    "N_CHANNELS",
    "Tokens",
    "channel_band",
    "channel_plane",
    "channel_zigzag",
    "check_tokens",
    "code_episodes",
    "dct_from_image",
    "decode_frames",
    "grid_from_image",
    "grid_from_jpeg",
    "grid_from_tokens",
    "grid_size",
    "image_from_grid",
    "image_from_jpeg",
    "jpeg_size",
    "legal_mask",
    "legal_positions",
    "quantisation",
    "round_trip",
    "round_trips",
    "stack_references",
    "token_count",
    "tokens_from_grid",
]
