"""What compare.py measures: the losses of the trades at their shapes, and who computes them.

A kind is a loss with its definition, in plain torch and float64 (ssimloss.reference); a row is a kind at the
shape of a trade. Every contender of a row claims to compute the row's definition; compare.py looks first.
"""

import functools
import importlib.util
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accuracy import imported, photograph
from gpu_tables import COPY, FRAME_ANALYTICS, FUSED_SSIM, KORNIA, L1, MSSSIM, OURS, Loss
from torch import Tensor

import ssimloss
from ssimloss import reference

TORCHMETRICS, FASTMRI = "torchmetrics", "fastmri"
Images = Callable[[Tensor], Tensor]


def as_it_is(image: Tensor) -> Tensor:
    return image


class Contender(NamedTuple):
    loss: Loss  # of images [N, C, H, W]
    lay: Images = as_it_is  # of such images makes what a user has
    view: Images = as_it_is  # of that, without a copy, such images


class Kind(NamedTuple):
    """taps: of all windows together, along a side; scales: of them; side: of the picture for the check."""

    ours: Callable[[], Loss]
    definition: Loss
    taps: int
    scales: int = 1
    side: int = 48
    sides: int = 2

    @property
    def fma(self) -> int:
        """FMA of value + gradient an element: as in gpu_tables.py, of separable windows."""
        return 7 * self.sides * self.taps + 28 * self.scales


class Row(NamedTuple):
    kind: str
    trade: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.trade}, {'x'.join(map(str, self.shape))}"


def one_minus(similarity: Callable[..., Tensor], **options: Any) -> Loss:
    return lambda x, y: 1 - similarity(x, y, **options)


SSIM, REFLECT, L1_SSIM, DYADIC = "SSIM", "SSIM, mirrored borders", "L1 + SSIM", "MS-SSIM"
MIX, MIX_33, UNIFORM, VOLUMES, DTYPES = (
    "Mix",
    "Mix of 33 taps",
    "SSIM, uniform 7x7",
    "SSIM of volumes",
    "dtypes",
)
_kornias = dict(alpha=0.025, l1_range=1.0, window_size=33, padding="zeros")
_mri = dict(window="uniform", sample_covariance=True)
KINDS = {
    "L1": Kind(ssimloss.L1Loss, reference.l1_loss, 0, 0),
    SSIM: Kind(ssimloss.SSIMLoss, one_minus(reference.ssim), 11),
    REFLECT: Kind(
        lambda: ssimloss.SSIMLoss(padding="reflect"), one_minus(reference.ssim, padding="reflect"), 11
    ),
    L1_SSIM: Kind(
        lambda: ssimloss.L1SSIMLoss(padding="valid"),
        functools.partial(reference.l1_ssim_loss, padding="valid"),
        11,
    ),
    # The coarser levels: a third more elements. A side of more than 160.
    DYADIC: Kind(lambda: ssimloss.MSSSIMLoss("dyadic"), one_minus(reference.ms_ssim), 15, side=176),
    MIX: Kind(ssimloss.MixLoss, reference.mix_loss, 115, 5, side=64),
    MIX_33: Kind(
        lambda: ssimloss.MixLoss(**_kornias), functools.partial(reference.mix_loss, **_kornias), 165, 5
    ),
    # A mean slides along: one addition and one subtraction a position.
    UNIFORM: Kind(lambda: ssimloss.SSIMLoss(**_mri), one_minus(reference.ssim, **_mri), 2),
    VOLUMES: Kind(ssimloss.SSIMLoss, one_minus(reference.ssim), 11, side=24, sides=3),
    DTYPES: Kind(ssimloss.SSIMLoss, one_minus(reference.ssim), 11),
}
ROWS = [
    Row(SSIM, "full HD", (1, 3, 1080, 1920)),
    Row(DYADIC, "full HD", (1, 3, 1080, 1920)),
    Row(MIX, "full HD", (1, 3, 1080, 1920)),
    Row("L1", "full HD", (1, 3, 1080, 1920)),
    Row(L1_SSIM, "splatting", (1, 3, 800, 1200)),
    Row(DYADIC, "super-resolution", (8, 3, 192, 192)),
    Row(SSIM, "super-resolution", (16, 3, 128, 128)),
    Row(MIX_33, "super-resolution", (16, 3, 128, 128)),
    Row(DYADIC, "luma", (8, 1, 256, 256)),
    Row(REFLECT, "luma", (8, 1, 256, 256)),
    Row(DYADIC, "compression", (8, 3, 256, 256)),
    Row(UNIFORM, "MRI", (1, 1, 320, 320)),
    Row(VOLUMES, "medicine", (1, 1, 96, 128, 128)),
    Row(DTYPES, "full HD", (1, 3, 1080, 1920)),
]


# ---- The others: package -> (module, kind -> its loss, from that module)


def with_l1(dissimilarity: Loss) -> Loss:
    return lambda x, y: 0.8 * F.l1_loss(x, y) + 0.2 * dissimilarity(x, y)


def of_its_dtype(module: torch.nn.Module, *more: Callable[[Tensor], Tensor]) -> Loss:
    """A module whose windows are buffers, in float32 until they are moved."""
    return lambda x, y: module.to(x)(x, y, *(make(x) for make in more))


def kornia_ssim(m: ModuleType, padding: str) -> Loss:
    return lambda x, y: 2 * m.ssim_loss(x, y, 11, padding=padding)  # it halves


PEERS: dict[str, tuple[str, dict[str, Callable[[Any], Loss]]]] = {
    FRAME_ANALYTICS: (
        "frame_analytics",
        {
            SSIM: lambda m: one_minus(m.ssim, data_range=1.0),
            L1_SSIM: lambda m: with_l1(one_minus(m.ssim, data_range=1.0)),
            DYADIC: lambda m: one_minus(m.ms_ssim, data_range=1.0),
        },
    ),
    MSSSIM: (
        "pytorch_msssim",
        {
            SSIM: lambda m: one_minus(m.ssim, data_range=1.0),
            L1_SSIM: lambda m: with_l1(one_minus(m.ssim, data_range=1.0)),
            DYADIC: lambda m: one_minus(m.ms_ssim, data_range=1.0),
            VOLUMES: lambda m: one_minus(m.ssim, data_range=1.0),
        },
    ),
    KORNIA: (
        "kornia.losses",
        {
            SSIM: lambda m: kornia_ssim(m, "valid"),
            REFLECT: lambda m: kornia_ssim(m, "same"),
            MIX_33: lambda m: of_its_dtype(m.MS_SSIMLoss(compensation=1.0)),
            VOLUMES: lambda m: lambda x, y: 2 * m.ssim3d_loss(x, y, 11, padding="valid"),
        },
    ),
    TORCHMETRICS: (
        "torchmetrics.functional.image",
        {
            REFLECT: lambda m: one_minus(m.structural_similarity_index_measure, data_range=1.0),
            DYADIC: lambda m: one_minus(m.multiscale_structural_similarity_index_measure, data_range=1.0),
        },
    ),
    FASTMRI: (
        "fastmri.losses",
        {UNIFORM: lambda m: of_its_dtype(m.SSIMLoss(), lambda x: x.new_ones(len(x)))},
    ),
    FUSED_SSIM: (
        "fused_ssim",
        {
            SSIM: lambda m: one_minus(m.fused_ssim, padding="valid"),
            L1_SSIM: lambda m: with_l1(one_minus(m.fused_ssim, padding="valid")),
        },
    ),
}
ONLY_CUDA_FLOAT32 = (FUSED_SSIM,)
# By kind, those that stand in a row for their speed alone; of other kinds F.l1_loss.
CLAIM_NOTHING: dict[str, list[str]] = {"L1": [COPY], DTYPES: []}


@functools.cache
def installed() -> dict[str, str]:
    """The peers that are here: their versions. Nothing is imported."""
    found = {}
    for name, (module, _) in PEERS.items():
        if importlib.util.find_spec(module.partition(".")[0]):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "unknown"
    return found


def loss_of(name: str, kind: str) -> Loss:
    """A peer's loss; if its package cannot be imported, one that says why."""
    module, losses = PEERS[name]
    try:
        return losses[kind](imported(module))
    except Exception as error:  # a library inside that does not load, say
        problem = error

    def raises(x: Tensor, y: Tensor) -> Tensor:
        raise problem

    return raises


def copy_of_as_many_bytes(x: Tensor, y: Tensor) -> Tensor:
    """In the place of a loss: as many bytes read and written as l1 must, which are x, y and a gradient."""
    count = x.numel() * (3 if x.requires_grad else 2) // 2
    source, target = buffers(3 * x.numel() // 2, x.device)
    target[:count].copy_(source[:count])
    return torch.zeros((), requires_grad=x.requires_grad)


@functools.lru_cache(1)
def buffers(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.zeros(count, device=device), torch.zeros(count, device=device)


def channels_last(t: Tensor) -> Tensor:
    return t.float().contiguous(memory_format=torch.channels_last)


RENDERED = (  # [N, H, W, C], as a renderer has it
    lambda t: t.permute(0, 2, 3, 1).contiguous(),
    lambda t: t.permute(0, 3, 1, 2),
)


def contenders(row: Row, device: str) -> dict[str, Contender]:
    """By name; the first is ours."""
    ours = KINDS[row.kind].ours()
    if row.kind == DTYPES:
        made = {
            OURS: Contender(ours, Tensor.float),
            "float16": Contender(ours, Tensor.half),
            "bfloat16": Contender(ours, Tensor.bfloat16),
            "float64": Contender(ours, Tensor.double),
            "channels_last": Contender(ours, channels_last),
            "[N, H, W, C], permuted": Contender(ours, lambda t: RENDERED[0](t.float()), RENDERED[1]),
        }
        return made
    losses: dict[str, Loss] = {OURS: ours, L1: F.l1_loss}
    losses |= {COPY: copy_of_as_many_bytes} if row.kind == "L1" else {}
    for name in installed():
        if row.kind in PEERS[name][1] and (device == "cuda" or name not in ONLY_CUDA_FLOAT32):
            losses[name] = loss_of(name, row.kind)
    laid = RENDERED if row.trade == "splatting" else (as_it_is, as_it_is)
    return {name: Contender(loss, *laid) for name, loss in losses.items()}


def picture(row: Row) -> Tensor:
    """Of a photograph as much as the check of answers needs, with the row's channels, float32."""
    side, channels = KINDS[row.kind].side, row.shape[1]
    image = photograph()[:, :channels]
    if len(row.shape) == 4:
        return image[..., :side, :side].contiguous()
    return torch.stack([image[..., d : d + side, d : d + side] for d in range(side)], 2)
