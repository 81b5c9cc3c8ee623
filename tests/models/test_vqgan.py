import math
from dataclasses import replace

import pytest
import timm
import torch

from transframer.errors import ConfigError
from transframer.models.adversary import Discriminator, Perceptual
from transframer.models.vqgan import VQAutoencoder, straight_through

from .videos import CONFIG, SIZE, noise_frame


def images(n=4):
    return torch.stack([noise_frame(seed) for seed in range(n)])


def generator():
    return torch.Generator().manual_seed(0)


def test_straight_through_gives_the_vectors_and_the_gradient_of_the_latents():
    torch.manual_seed(0)
    latents = torch.randn(5, 3, requires_grad=True)
    vectors = torch.randn(5, 3, requires_grad=True)
    out = straight_through(latents, vectors)
    assert torch.allclose(out, vectors, atol=1e-6)
    out.square().sum().backward()
    assert torch.allclose(latents.grad, 2 * vectors.detach()), "as if nothing had been quantised"
    assert vectors.grad is None


def test_the_reconstruction_reaches_the_encoder():
    torch.manual_seed(0)
    model = VQAutoencoder(replace(CONFIG, commitment=0.0))
    model.loss(images(), generator()).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder[1].parameters())


def test_codes_and_images():
    torch.manual_seed(0)
    model = VQAutoencoder(CONFIG)
    model.loss(images(), generator())
    codes = model.encode_indices(images())
    assert codes.shape == (4, SIZE // 4, SIZE // 4, 2)
    assert codes.max() < 8
    out = model.decode_indices(codes)
    assert out.shape == (4, 3, SIZE, SIZE)
    assert out.dtype == torch.uint8
    alone = model.encode_indices(images()[2:3])
    assert torch.equal(alone[0], codes[2]), "an image's codes do not depend on the others"
    assert model.bits_per_image(SIZE, SIZE) == 16 * 2 * math.log2(8)
    assert model.codebook_sizes == [8, 8]


def test_it_learns():
    torch.manual_seed(0)
    model = VQAutoencoder(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    errors = []
    for _ in range(60):
        loss = model.loss(images(8), generator())
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        errors.append(loss.squared_error.mean().item())
    mean = images(8).float().mean((0, 2, 3), keepdim=True)
    blank = ((images(8).float() - mean) / 127.5).square().mean().item()
    assert errors[-1] < 0.3 * blank


def test_the_discriminator_learns_to_tell_and_the_image_to_fool():
    torch.manual_seed(0)
    critic = Discriminator(8)
    truth, last = torch.rand(2, 3, SIZE, SIZE), torch.nn.Parameter(torch.full((3, 1, 1), 0.5))
    coded = (torch.rand(2, 3, SIZE, SIZE) * last).clone()
    reconstruction = (coded - truth).square().mean()
    loss = critic.loss(coded, truth, reconstruction, last, 0.5)
    # With the weight 0 the parameters of the critic have the same gradient: fooling it is not its aim.
    own = torch.autograd.grad(loss, list(critic.parameters()), retain_graph=True)
    plain = torch.relu(1 - critic(truth)).mean() + torch.relu(1 + critic(coded.detach())).mean()
    for one, other in zip(own, torch.autograd.grad(plain, list(critic.parameters())), strict=True):
        assert torch.allclose(one, other, atol=1e-7)
    # Equation 7 of the paper: the two gradients at the last layer are as large, up to the weight.
    of_all = torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
    of_reconstruction = torch.autograd.grad(reconstruction, last, retain_graph=True)[0].norm()
    assert of_all.item() == pytest.approx(0.5 * of_reconstruction.item(), rel=1e-2)
    toward = torch.autograd.grad(loss, coded)[0]
    with torch.no_grad():
        assert critic(coded - 0.1 * toward / toward.norm()).mean() > critic(coded).mean()


def test_gan_is_a_switch_that_waits():
    torch.manual_seed(0)
    plain = VQAutoencoder(CONFIG)
    assert not any("discriminator" in name for name in plain.state_dict())
    model = VQAutoencoder(replace(CONFIG, gan=True, gan_start=0.5, gan_weight=0.5))
    shared = {k: v for k, v in model.state_dict().items() if "discriminator" not in k}
    plain.load_state_dict(shared)
    heard = []
    for progress in (0.4, 0.6):
        grads = []
        for each in (plain, model):
            each.zero_grad()
            each.loss(images(), generator(), progress).total.backward()
            grads.append(each.decoder[-2].weight.grad.clone())
        heard.append(not torch.allclose(*grads, atol=1e-7))
    assert heard == [False, True], "before gan_start the decoder hears nothing of the critic"


@pytest.mark.parametrize("name", ["resnet10t", "vgg11"])
def test_the_perceptual_term_sees_features_of_the_named_weights_and_is_not_saved(tmp_path, name):
    torch.manual_seed(0)
    whole = timm.create_model(name, pretrained=False).eval()
    torch.save(whole.state_dict(), tmp_path / "network.pth")
    torch.manual_seed(1)  # other random weights, were the file not read
    term = Perceptual(name, str(tmp_path / "network.pth"))
    a = torch.stack([image.float() / 127.5 - 1 for image in images(2)]).repeat_interleave(4, 2)
    a = a.repeat_interleave(4, 3).requires_grad_()
    assert term(a.detach(), a.detach()) == 0
    distance = term(a, a.detach().flip(3))
    assert distance > 0
    distance.backward()
    assert a.grad.abs().sum() > 0
    first, expected = (next(iter(m.state_dict().values())) for m in (term._hidden[0], whole))
    assert torch.equal(first, expected)
    model = VQAutoencoder(
        replace(
            CONFIG, perceptual=name, perceptual_weights=str(tmp_path / "network.pth"), perceptual_weight=1.0
        )
    )
    plain = VQAutoencoder(CONFIG)
    plain.load_state_dict(model.state_dict())
    large = images(2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert model.loss(large, generator()).total > plain.loss(large, generator()).total
    assert set(model.state_dict()) == set(plain.state_dict())
    missing = VQAutoencoder(replace(CONFIG, perceptual=name, perceptual_weights=str(tmp_path / "gone.pth")))
    missing.codebooks.ready.fill_(True)
    assert missing.encode_indices(images()).shape == (4, 4, 4, 2), "to predict, nobody needs the network"
    with pytest.raises(ConfigError, match=name):
        missing.loss(large, generator())


def test_a_network_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="no_such_net"):
        Perceptual("no_such_net", str(tmp_path / "w.pth"))
    with pytest.raises(ConfigError, match="resnet10t"):
        Perceptual("resnet10t", str(tmp_path / "missing.pth"))
