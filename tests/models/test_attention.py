"""Every way to attend against one slow reference in fp64, and what bf16 does to a model's nats."""

import pytest
import torch

from tests.models.conftest import episode, with_gradients
from transframer.models import attention, packed_attention
from transframer.models.attention import MultiQueryAttention, attend

B, N, HEADS, D = 3, 11, 4, 8
BF16_BOUND = 0.03  # of the largest number: bf16 keeps 8 bits, and a path rounds a few times
BF16_NATS = 0.02  # of a frame's nats, which sum several hundred logits


def slow(query, keys, values, allowed):
    """Scores by einsum, one softmax; `allowed` b x n x m."""
    scores = torch.einsum("bihd,bjd->bihj", query, keys) / D**0.5
    weight = scores.masked_fill(~allowed[:, :, None], -torch.inf).softmax(-1)
    return torch.einsum("bihj,bjd->bihd", weight, values)


def operands(kind, dtype):
    generator = torch.Generator().manual_seed(3)
    m = N if kind.startswith("causal") else 7
    shapes = ((B, N, HEADS, D), (B, m, D), (B, m, D), (B, N, HEADS, D))
    *inputs, gradient = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    allowed, mask = torch.ones(B, N, m, dtype=torch.bool), None
    if kind.startswith("causal"):
        allowed = allowed.tril()
    if kind == "padded memory":
        mask = (torch.arange(m) < torch.tensor([[7], [1], [4]]))[:, None, None]
        allowed = mask[:, 0].expand(-1, N, -1)
    if kind == "after a cache":
        mask = torch.ones(N, m, dtype=torch.bool).tril(3)
        allowed = mask.expand(B, -1, -1)
    return inputs, gradient, mask, allowed


@pytest.mark.parametrize(
    "kind", ["causal", "causal in blocks", "whole memory", "padded memory", "after a cache"]
)
@pytest.mark.parametrize("path", ["sdpa", "fp32", "products"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_path_is_attention_in_value_and_gradient(kind, path, dtype, monkeypatch):
    inputs, gradient, mask, allowed = operands(kind, dtype)
    expected = with_gradients(lambda *t: slow(*t, allowed), [t.double() for t in inputs], gradient)
    monkeypatch.setattr(attention, "attention_path", lambda query: path)
    if kind == "causal in blocks":
        monkeypatch.setattr(packed_attention, "_LENGTH", 4)
        monkeypatch.setattr(packed_attention, "_CAUSAL_ROWS", 4 * HEADS)
    got = with_gradients(lambda *t: attend(*t, mask, kind.startswith("causal")), inputs, gradient)
    for value, truth in zip(got, expected, strict=True):
        assert value.dtype == dtype
        bound = 1e-5 if dtype == torch.float32 else BF16_BOUND
        assert (value.double() - truth).abs().max() <= bound * truth.abs().max()


@pytest.mark.parametrize(("path", "keys"), [("sdpa", 9), ("fp32", 9), ("products", 9), ("products", 800)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_path_across_frames_is_attention(path, keys, dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, keys, 8, generator=generator).to(dtype) for _ in range(3)]
    gradient = torch.randn(2, 3, keys, 8, generator=generator)

    def exact(query, keys, values):
        return ((query @ keys.mT) * 8**-0.5).softmax(-1) @ values

    expected = with_gradients(exact, [t.double() for t in inputs], gradient)
    monkeypatch.setattr(attention, "attention_path", lambda query: path)
    for value, truth in zip(with_gradients(attention._fused, inputs, gradient), expected, strict=True):
        assert value.dtype == dtype
        bound = 1e-4 if dtype == torch.float32 else 2 * BF16_BOUND
        assert (value.double() - truth).abs().max() <= bound * truth.abs().max()


def test_the_path_follows_precision_and_direction(monkeypatch):
    query = torch.zeros(1, 1, 1, 1)
    for multiplies, expected in ((False, "fp32"), (True, "products")):
        monkeypatch.setattr(attention, "cpu_multiplies_bf16", lambda answer=multiplies: answer)
        assert attention.attention_path(query) == "sdpa"
        assert attention.attention_path(query.bfloat16()) == expected
        with torch.no_grad():
            assert attention.attention_path(query.bfloat16()) == "sdpa"
    assert attention.attention_path(torch.zeros(1, device="meta").bfloat16()) == "sdpa"


@pytest.mark.parametrize("path", ["fp32", "products"])
def test_a_layer_under_autocast_is_near_fp32(path, monkeypatch):
    monkeypatch.setattr(attention, "attention_path", lambda query: path if query.requires_grad else "sdpa")
    torch.manual_seed(0)
    layer, x = MultiQueryAttention(32, HEADS), torch.randn(B, N, 32)

    def attended():
        keys, values = layer.project(x)
        return layer(x, lambda query: attend(query, keys, values, None, True)), keys

    exact, _ = attended()
    with torch.autocast("cpu", torch.bfloat16):
        got, keys = attended()
        assert keys.dtype == torch.bfloat16
    assert got.dtype == torch.bfloat16
    assert (got - exact).abs().max() <= BF16_BOUND * exact.abs().max()


def test_bf16_nats_of_frames_stay_near_fp32(any_model):
    frames = [episode(0, 1, subsampling="4:4:4"), episode(2, 3, reference=(0.0, 0.0, 1.0), quality=60)]
    exact = any_model.log_prob(frames)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = any_model.log_prob(frames)
    assert torch.isfinite(rounded).all()
    assert ((rounded - exact).abs() <= BF16_NATS * exact.abs()).all(), (rounded - exact) / exact


def test_bf16_loss_and_gradient_stay_near_fp32(any_model):
    batch = any_model.collate([episode(0, 1), episode(1, 2, task="second", with_camera=True)])
    found = []
    for enabled in (False, True):
        any_model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = any_model.loss(batch, torch.Generator().manual_seed(0)).total
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in any_model.parameters() if p.grad is not None])
        found.append((loss.detach(), gradient))
    (exact, gradient), (rounded, rounded_gradient) = found
    assert abs(rounded - exact) <= BF16_NATS * abs(exact)
    assert torch.cosine_similarity(gradient, rounded_gradient, dim=0) >= 0.99
