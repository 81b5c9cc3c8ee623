"""Settings of the spatial-temporal transformer and its autoencoder; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from transframer.errors import ConfigError


@dataclass(frozen=True)
class SpatialTemporalConfig:
    """Every choice of the second predictor.

    Attributes:
        model: which model this is, so that saved settings tell; leave it as it is.
        widths: channels of the autoencoder per level; level k has one cell per 2**(k+1) pixels, and the last
            level is that of the latents.
        blocks: residual blocks per level of the encoder; the decoder has one more.
        groups: codebooks; each codes its own part of a latent vector (product quantisation).
        codes: vectors in a codebook.
        code_width: channels of such a vector.
        codebook_decay: of the moving averages that the vectors are.
        revive_below: a vector used less often than this share of the mean is replaced by a latent vector of
            the batch; 0 never does.
        commitment: weight of the encoder's distance to the vectors that it is coded by.
        autoencoder_share: of the training, in which the autoencoder learns alone; then it stays as it is, and
            the transformer learns its codes.
        autoencoder_lr_scale: its learning rate relative to the transformer's.
        gan: a patch discriminator judges the autoencoder's images as well (VQGAN instead of VQ-VAE).
        gan_weight: of the discriminator's gradient, relative to that of the reconstruction.
        gan_start: share of the autoencoder's training before it weighs in.
        perceptual: name of a timm network with pretrained weights whose features are compared as well; ""
            for none.
        perceptual_weights: file with the weights of that network; timm's pretrained ones if "".
        perceptual_weight: of that term, relative to the squared error of pixels in [-1, 1].
        width: channels of the transformer.
        layers: each attends over space, then over time, and ends with a Gaussian layer.
        heads: of attention.
        mlp_ratio: hidden width of an MLP over its width.
        latent_width: channels of a Gaussian layer's sample; 0 for layers without one.
        whole_frame_layers: so many layers, from the first, draw one sample for the whole frame instead of one
            in each cell; without any, uncertain futures come with the wrong frequencies (docs/log.md).
        kl_weight: of the Gaussian layers' divergence in the training loss; 1 makes it a bound of the
            likelihood.
        kl_warmup: share of the transformer's training over which that weight rises from 0; without it the
            latents stay unused (docs/log.md).
        bound_samples: samples of the latents by which `log_prob` is bounded: the more, the tighter.
        head: what the transformer predicts of the next frame: "categorical", the codes one group after the
            other, or "regression", the latent vectors by least squares (as the original does).
        dropout: on the residual branches of the transformer.
    """

    model: str = "spatial-temporal"
    widths: tuple[int, ...] = (32, 64, 112)
    blocks: int = 1
    groups: int = 4
    codes: int = 256
    code_width: int = 16
    codebook_decay: float = 0.95
    revive_below: float = 0.03
    commitment: float = 0.25
    autoencoder_share: float = 0.35
    autoencoder_lr_scale: float = 0.33
    gan: bool = False
    gan_weight: float = 0.5
    gan_start: float = 0.5
    perceptual: str = ""
    perceptual_weights: str = ""
    perceptual_weight: float = 0.1
    width: int = 144
    layers: int = 4
    heads: int = 4
    mlp_ratio: float = 3.0
    latent_width: int = 12
    whole_frame_layers: int = 2
    kl_weight: float = 1.0
    kl_warmup: float = 0.25
    bound_samples: int = 4
    head: str = "categorical"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        def check(name: str, holds: bool, expected: str) -> None:
            if not holds:
                raise ConfigError(f"{getattr(self, name)!r}", field=name, expected=expected)

        check("model", self.model == "spatial-temporal", "'spatial-temporal'")
        check("head", self.head in ("categorical", "regression"), "categorical or regression")
        whole = bool(self.widths) and all(type(w) is int and w > 0 and w % 8 == 0 for w in self.widths)
        check("widths", whole, "multiples of 8")
        for name in ("blocks", "groups", "code_width", "layers", "heads", "bound_samples", "width"):
            check(name, getattr(self, name) >= 1, "at least 1")
        check("mlp_ratio", self.mlp_ratio > 0, "above 0")
        check("dropout", 0 <= self.dropout < 1, "0 to less than 1")
        check("width", self.width % (2 * self.heads) == 0, f"a multiple of 2 x {self.heads} heads")
        check("codes", self.codes >= 2, "at least 2")
        check("autoencoder_share", 0 < self.autoencoder_share < 1, "between 0 and 1")
        check("gan_start", 0 <= self.gan_start <= 1, "0 to 1")
        check("codebook_decay", 0 < self.codebook_decay < 1, "between 0 and 1")
        for name in (
            "revive_below",
            "autoencoder_lr_scale",
            "commitment",
            "gan_weight",
            "perceptual_weight",
        ):
            check(name, getattr(self, name) >= 0, "0 or more")
        for name in ("latent_width", "kl_weight", "whole_frame_layers", "kl_warmup", "dropout"):
            check(name, getattr(self, name) >= 0, "0 or more")

    @property
    def cell_px(self) -> int:
        """Pixels along each side of a latent's cell."""
        return 2 ** len(self.widths)


# Peak learning rates. Of tiny's, the autoencoder's part was measured (docs/log.md); the others are guesses.
LEARNING_RATES = {"tiny": 3e-3, "small": 7e-4, "base": 3e-4}

PRESETS: dict[str, SpatialTemporalConfig] = {
    "tiny": SpatialTemporalConfig(),
    "small": SpatialTemporalConfig(
        widths=(64, 128, 256),
        blocks=2,
        codes=512,
        code_width=32,
        width=384,
        layers=6,
        heads=6,
        mlp_ratio=4.0,
        latent_width=16,
    ),
    "base": SpatialTemporalConfig(
        widths=(96, 192, 384),
        blocks=3,
        codes=1024,
        code_width=32,
        width=704,
        layers=10,
        heads=11,
        mlp_ratio=4.0,
        latent_width=32,
        dropout=0.1,
    ),
}
