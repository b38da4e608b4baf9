"""Similarities of two batches of images, differentiable with respect to both.

Each takes x and y of the same shape [N, C, H, W] or [C, H, W], `ssim` volumes [N, C, D, H, W] besides, and of
the same dtype (float16, bfloat16, float32 or float64; under autocast mixed dtypes are taken as float32), and
these options. y, the truth, may be uint8 beside any of them, where a value is value * data_range / 255; or
float16 or bfloat16 beside float32 and float64. The CPU reads it as it is; the result is that of converting
it first (beside 16-bit x, of converting both to float32), to the bit but for the last one beside float64.
CUDA converts it. It then takes no gradient: one that requires it is an error.

data_range   the difference between the largest and the smallest possible value (1.0, 255, ...); or a Tensor
             on the images' device, [] or [N]: a range for each image. An image whose range is not a finite
             number > 0 gives NaN. It takes no gradient, and nothing waits for the device.
k1, k2       (k1 data_range)**2 and (k2 data_range)**2 keep the quotients of l and of cs from 0 / 0.
window_size  side of every Gaussian window, odd; None: 2 * int(3.5 * sigma + 0.5) + 1, as scikit-image. At
             most 1023, on CUDA 65. Of volumes `ssim` takes three, along D, H and W, and three sigmas.
padding      "valid": positions where the largest window fits; "zeros": zeros around the images (what
             fused-ssim calls same); "reflect": the images mirrored, the edge not repeated; "normalized":
             of a window what lies in the image, its weights scaled to the sum 1.
reduction    "mean": a scalar; "none": one value an image, [N], a scalar for [C, H, W]; "map": one
             value a position and channel, [N, C, H', W'] or [N, C, D', H', W'].
mask         weights of the pixels in [0, 1]: [N, 1 or C, H, W] or [1 or C, H, W] (of volumes with a D), of
             bool, uint8 or a float type. Losses take it where they are called. No gradient to it: one that
             requires it is an error.

Under a mask, means and variances are those under the window times the mask, divided by their sum (normalised
convolution). A value is sum(mask * map) / sum(mask) over the positions; so is that of an l1 term. A pixel of
weight 0 is left out whatever it holds, NaN as well, and its gradient is 0; a map is 0 there. Where nothing is
left, similarities and losses are 0. The zeros of padding="zeros" have the weight of the pixel next to them.
ms_ssim halves images under the mask, and the mask by its means; a level that keeps no position counts as 1,
and the mean is over the images and channels that keep some. Weights outside of [0, 1] are an error on the
CPU; on other devices, in compiled graphs and in transforms they make the loss NaN. A mask of ones is as
none, on the CPU to the bit, where nothing compiles or transforms the call. The kernels take masks and padding
"normalized", but on CUDA for volumes and a few more (docs/limits.md). Plain torch computes these, in float64:
right as far as that reaches (docs/accuracy.md), but slower (on a CPU 60 to 200 times), in much memory.

The result is float32 for 16-bit images; gradients have the images' dtype. Values outside the data
range are computed as they are (how exactly: docs/accuracy.md); NaN gives NaN. A batch without images has
no mean: NaN, with a mask as without. Bad arguments raise ValueError, other dtypes, layouts and DTensors
TypeError, a CUDA tensor in a build without the CUDA kernels RuntimeError. On other devices, as mps and
xpu, plain torch computes the loss, slowly and with float32's digits, and a warning says so once.

Black must be 0, as SSIM compares means: of images in [-1, 1] take x + 1 and y + 1 with data_range=2, or the
value is another one.

Two mistakes warn, with a UserWarning each, once a process: sides that look like [N, H, W, C], and values of
which most lie beyond twice the data range. For the latter 16 pixels are looked at, on the CPU alone: on
CUDA that would have to wait for the device.

On the CPU at most two gradients whose shapes come again are held for the next step: see ssimloss.memory.
"""

from collections.abc import Sequence

from torch import Tensor

from .images import similarity_of
from .options import dyadic_options, gaussian_options, number_of, ssim_options
from .reference import WANG_WEIGHTS, ZHAO_SIGMAS

__all__ = ["ms_ssim", "ms_ssim_gaussian", "ssim"]


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    mask: Tensor | None = None,
    data_range: float | Tensor = 1.0,
    window: str = "gaussian",
    sigma: float | Sequence[float] | None = None,
    window_size: int | Sequence[int] | None = None,
    sample_covariance: bool = False,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    """Structural similarity, in [-1, 1]; 1 for identical images.

    Wang et al. 2004, equation 13, doi:10.1109/TIP.2003.819861.

    window             "gaussian": of standard deviation sigma in pixels, by default 1.5; "uniform": all
                       weights equal, by default 7x7 pixels, without a sigma.
    sample_covariance  with a uniform window of n pixels: variances and the covariance times n / (n - 1).
                       With window="uniform" this is what scikit-image's structural_similarity does by
                       default, and fastMRI's loss.

    Four dimensions are always images: of one volume [C, D, H, W] take x[None]. sigma and window_size may be
    three numbers, along D, H and W, as voxels are seldom cubes: then x and y must be volumes.

    Shapes, the other options and errors: see ssimloss.functional.
    """
    options = ssim_options(
        window=window,
        sigma=sigma,
        window_size=window_size,
        sample_covariance=sample_covariance,
        data_range=number_of(data_range),
        k1=k1,
        k2=k2,
        padding=padding,
        reduction=reduction,
    )
    return similarity_of(x, y, options, mask, data_range)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    mask: Tensor | None = None,
    data_range: float | Tensor = 1.0,
    sigma: float = 1.5,
    window_size: int | None = None,
    weights: Sequence[float] = WANG_WEIGHTS,
    halving: str = "edge",
    negative: str = "clamp",
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    """Multi-scale structural similarity over a dyadic pyramid, in [0, 1]; 1 for identical images.

    Wang et al. 2003, equation 7, doi:10.1109/ACSSC.2003.1292216: prod_j m_j^w_j an image and channel,
    m_j the mean of cs at level j (of l * cs at the last), one level for each of `weights`. Images of
    any size into which the window fits at the coarsest level; fewer weights, fewer levels. There is
    no "map". The default arguments give the numbers of Wang's msssim.m (MATLAB) and TensorFlow.

    sigma     the window's standard deviation, in pixels of each level.
    halving   of a side with an odd number of pixels. "edge": the last one counts twice, as in msssim.m,
              TensorFlow and piqa. "zeros": a zero comes before the first, as in pytorch-msssim. "drop": the
              last one is left out, as in torchmetrics, and takes no gradient from the coarser levels.
    negative  where m_j is negative and has no fractional power. "clamp": it counts as 0, as in these
              packages, and the gradient of that image and channel is 0. "continue", the default of the
              losses: below m_j = 0.05 its place is taken by 0.05**2 / (0.1 - m_j), which has the same value
              and slope at 0.05 and is 0.0023 at m_j = -1. So on anti-correlated images the value stays
              positive and the gradient large enough to train with.

    The similarity is one minus the loss that is computed: in float32 it is right to 2e-7, the least of
    them to four digits; take float64 images where the logarithm of a small one must have more. Clamped,
    it is less right where an m_j is near 0, as the power is steep there: m_j itself is right to 2e-7.

    Shapes, options and errors: see ssimloss.functional. By default images of 161x161 pixels and more.
    """
    options = dyadic_options(
        weights,
        sigma,
        window_size,
        padding,
        number_of(data_range),
        k1,
        k2,
        halving=halving,
        negative=negative,
        reduction=reduction,
    )
    return similarity_of(x, y, options, mask, data_range)


def ms_ssim_gaussian(
    x: Tensor,
    y: Tensor,
    *,
    mask: Tensor | None = None,
    data_range: float | Tensor = 1.0,
    sigmas: Sequence[float] = ZHAO_SIGMAS,
    window_size: int | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    """Multi-scale structural similarity at full resolution, in [-1, 1]; 1 for identical images.

    Zhao et al. 2017, equation 9, doi:10.1109/TCI.2016.2644865: l_M(p) * prod_j cs_j(p), scale j under
    a Gaussian of standard deviation sigmas[j] (at most 16), l from the largest, all exponents 1.
    Nothing is clamped: where cs_j is negative the product is what it is, and so is its gradient.

    Shapes, options and errors: see ssimloss.functional. By default images of 57x57 pixels and more.
    """
    options = gaussian_options(
        sigmas, window_size, padding, number_of(data_range), k1, k2, reduction=reduction
    )
    return similarity_of(x, y, options, mask, data_range)


NO_SCRIPT = (
    "ssimloss: torch.jit.script is not supported; torch.compile and torch.export are, or leave the loss out "
    "of what is scripted"
)
for _function in (ssim, ms_ssim, ms_ssim_gaussian):
    vars(_function)["__script_unsupported"] = NO_SCRIPT  # torch.jit.script looks for it, and raises it
