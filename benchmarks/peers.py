"""The peers of sampling: public encoder-decoders with random weights, made as large as the model beside them.

Each is built from a config with the width, heads and depth of our decoders; the hidden width of its MLPs then
brings the parameters of its decoder to ours. They are optional: `make bench-peers` installs them.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from transframer.benchmarks.plain import parameter_count

VOCABULARY = 512
INSTALL = "not installed: make bench-peers"


@dataclass(frozen=True)
class Likeness:
    """What a peer has in common with the model it stands beside.

    Attributes:
        width, heads, depth: of the decoder; depth is all its layers.
        memory: how many vectors of the encoder it attends to.
        tokens: how many it draws for a sample.
        decoder_parameters: of the decoder, with its embeddings and heads.
        parameters: of the whole model.
    """

    width: int
    heads: int
    depth: int
    memory: int
    tokens: int
    decoder_parameters: int
    parameters: int


@dataclass(frozen=True)
class Subject:
    """A model that is timed.

    Attributes:
        name: for the tables.
        draw: draws one frame's tokens for each sample of the batch; returns how many that were in all.
        encode: only the encoding that `draw` does.
        parameters: of the whole model.
        decoder_parameters: of its decoder.
        read_parameters: of these, what every token reads; not the rows of embeddings that are looked up, and
            not the projections of the encoder's vectors, which are cached.
        cached_numbers: keys, values and the like that one sample's token reads, on average over its tokens.
    """

    name: str
    draw: Callable[[], int]
    encode: Callable[[], object]
    parameters: int
    decoder_parameters: int
    read_parameters: int
    cached_numbers: float


@dataclass(frozen=True)
class Peer:
    """A public implementation.

    Attributes:
        name: for the tables.
        package: what has to be installed.
        build: (likeness, hidden width of the decoder's MLPs, layers of the encoder) -> model.
        decoder: model -> the modules of its decoder, with the head.
        unread: matches the names of embeddings of which a token reads only a row.
        generate: (model, inputs, tokens) -> sequences.
        encode: (model, inputs) -> features.
        one_key_value_head: whether its attention caches one head of keys and values.
        compiled: whether it compiles before its first draw, for a minute or so.
    """

    name: str
    package: str
    build: Callable[[Likeness, int, int], nn.Module]
    decoder: Callable[[Any], Sequence[nn.Module]]
    unread: str
    generate: Callable[[Any, torch.Tensor, int], torch.Tensor]
    encode: Callable[[Any, torch.Tensor], object]
    one_key_value_head: bool = False
    compiled: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.package) is not None

    def model(self, like: Likeness) -> nn.Module:
        """One with our decoder's parameters (within 1 %), and in all as near as whole layers come."""
        with torch.device("meta"):
            narrow, wide = (self.decoder_size(self.build(like, hidden, 1)) for hidden in (64, 128))
            hidden = max(8, round(64 + 64 * (like.decoder_parameters - narrow) / (wide - narrow)))
            one, two = (parameter_count(self.build(like, hidden, layers)) for layers in (1, 2))
        layers = round(1 + (like.parameters - one) / (two - one))
        return self.build(like, hidden, max(1, layers)).eval()

    def decoder_size(self, model: nn.Module) -> int:
        """Parameters of a model's decoder."""
        return sum(parameter.numel() for parameter in self._decoder(model).values())

    def subject(self, like: Likeness, batch: int, device: torch.device) -> Subject:
        """The peer, ready to be timed.

        Args:
            batch: samples that are drawn at once.
        """
        torch.manual_seed(0)
        model = self.model(like).to(device)
        inputs = torch.randint(2, VOCABULARY, (batch, like.memory), device=device)

        @torch.no_grad()
        def draw() -> int:
            return self.generate(model, inputs, like.tokens)[:, -like.tokens :].numel()

        @torch.no_grad()
        def encode() -> object:
            return self.encode(model, inputs)

        kept = like.width // like.heads if self.one_key_value_head else like.width
        looked_up = sum(p.numel() for name, p in self._decoder(model).items() if re.search(self.unread, name))
        read = self.decoder_size(model) - looked_up - 2 * like.depth * like.width * kept
        cached = 2 * kept * like.depth * (like.memory + (like.tokens + 1) / 2)
        return Subject(
            self.name, draw, encode, parameter_count(model), self.decoder_size(model), read, cached
        )

    def _decoder(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The decoder's parameters by name; what is shared counts once."""
        found: dict[int, tuple[str, nn.Parameter]] = {}
        for part, module in enumerate(self.decoder(model)):
            for name, parameter in module.named_parameters():
                found.setdefault(id(parameter), (f"{part}.{name}", parameter))
        return dict(found.values())


def _t5(like: Likeness, hidden: int, layers: int) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(  # type: ignore[call-arg]
        vocab_size=VOCABULARY,
        d_model=like.width,
        d_kv=like.width // like.heads,
        d_ff=hidden,
        num_layers=layers,
        num_decoder_layers=like.depth,
        num_heads=like.heads,
        dropout_rate=0.0,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    model.config.num_layers = like.depth  # its caches are made for as many layers as the encoder has
    return model


def _bart(like: Likeness, hidden: int, layers: int) -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=like.memory + like.tokens + 2,
        d_model=like.width,
        encoder_layers=layers,
        encoder_ffn_dim=hidden,
        encoder_attention_heads=like.heads,
        decoder_layers=like.depth,
        decoder_ffn_dim=hidden,
        decoder_attention_heads=like.heads,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def _hugging_face_decoder(model: Any) -> Sequence[nn.Module]:
    return model.get_decoder(), model.lm_head


def _hugging_face_generate(model: Any, inputs: torch.Tensor, tokens: int, static: bool) -> torch.Tensor:
    from transformers import CompileConfig, GenerationConfig

    logging.getLogger("transformers").setLevel(logging.ERROR)
    settings = GenerationConfig(
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=True,
        top_k=0,
        use_cache=True,
        pad_token_id=0,
        eos_token_id=None,
        decoder_start_token_id=0,
    )
    if static:
        settings.cache_implementation = "static"
        settings.compile_config = CompileConfig(dynamic=False)
        settings.compile_config._compile_all_devices = True  # else only on an accelerator
    return model.generate(inputs, generation_config=settings)


def _hugging_face_encode(model: Any, inputs: torch.Tensor) -> object:
    return model.get_encoder()(inputs)


def _x_transformer(like: Likeness, hidden: int, layers: int, one_head: bool) -> nn.Module:
    from x_transformers import XTransformer

    head = {"heads": like.heads, "attn_dim_head": like.width // like.heads, "ff_mult": hidden / like.width}
    if one_head:
        head["attn_kv_heads"] = 1
    sides = {"enc": {"depth": layers, "max_seq_len": like.memory}}
    sides["dec"] = {"depth": like.depth, "max_seq_len": like.tokens + 1}
    settings = {
        f"{side}_{name}": value
        for side, own in sides.items()
        for name, value in {**own, **head, "num_tokens": VOCABULARY}.items()
    }
    return XTransformer(dim=like.width, **settings)


def _x_generate(model: Any, inputs: torch.Tensor, tokens: int) -> torch.Tensor:
    start = inputs.new_ones(len(inputs), 1)
    # Its default keeps the likeliest tenth of the tokens, which costs a sort.
    return model.generate(inputs, start, tokens, filter_logits_fn=lambda logits: logits)


def _hugging_face(name: str, build: Callable, unread: str, static: bool) -> Peer:
    generate = partial(_hugging_face_generate, static=static)
    return Peer(
        name,
        "transformers",
        build,
        _hugging_face_decoder,
        unread,
        generate,
        _hugging_face_encode,
        compiled=static,
    )


def _x_transformers(name: str, one_head: bool) -> Peer:
    return Peer(
        name,
        "x_transformers",
        partial(_x_transformer, one_head=one_head),
        lambda model: (model.decoder,),
        "pos_emb|token_emb",
        _x_generate,
        lambda model, inputs: model.encoder(inputs, return_embeddings=True),
        one_head,
    )


PEERS = (
    _hugging_face("T5", _t5, "^$", static=False),
    _hugging_face("T5, static cache, compiled", _t5, "^$", static=True),
    _hugging_face("BART", _bart, "embed_positions", static=False),
    _hugging_face("BART, static cache, compiled", _bart, "embed_positions", static=True),
    _x_transformers("x-transformers", one_head=False),
    _x_transformers("x-transformers, one key/value head", one_head=True),
)
