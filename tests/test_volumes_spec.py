"""reference.py's SSIM of volumes, held against what is known of images and of one window."""

import torch
from cases import pair
from torch import Tensor

from ssimloss import reference


def test_reference_of_a_window_of_one_slice_is_that_of_the_images() -> None:
    """A window of one voxel along a side: the slices across it, each an image."""
    x, y = pair(2, 3, 12, 13, 14, dtype=torch.float64)
    for side in range(3):
        sizes, sigmas = [7] * 3, [1.2] * 3
        sizes[side], sigmas[side] = 1, 9.0
        slices = [t.movedim(2 + side, 1).flatten(0, 1) for t in (x, y)]
        for options in (dict(), dict(padding="zeros", data_range=2.0), dict(padding="reflect", k2=0.1)):
            expected = reference.ssim(*slices, sigma=1.2, window_size=7, reduction="map", **options)
            actual = reference.ssim(x, y, sigma=sigmas, window_size=sizes, reduction="map", **options)
            actual = actual.movedim(2 + side, 1).flatten(0, 1)
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_reference_is_the_formula_at_one_position() -> None:
    """One window that fills the volume: weighted means and variances, by hand."""
    x, y = (t[0, 0] for t in pair(1, 1, 3, 5, 7, dtype=torch.float64))
    sides = [
        torch.arange(-(n // 2), n // 2 + 1).double() / s
        for n, s in zip(x.shape, (0.8, 1.5, 2.5), strict=True)
    ]
    d, h, w = (torch.exp(-0.5 * side**2) for side in sides)
    window = d[:, None, None] * h[:, None] * w
    window = window / window.sum()

    def mean(t: Tensor) -> Tensor:
        return (window * t).sum()

    mu_x, mu_y = mean(x), mean(y)
    s_xy, s_xx, s_yy = (mean((a - mean(a)) * (b - mean(b))) for a, b in ((x, y), (x, x), (y, y)))
    expected = (2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4)
    expected = expected * (2 * s_xy + 9e-4) / (s_xx + s_yy + 9e-4)
    actual = reference.ssim(x[None, None], y[None, None], sigma=(0.8, 1.5, 2.5), window_size=(3, 5, 7))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    n = x.numel()
    ones = reference.ssim(
        x[None, None], y[None, None], window="uniform", window_size=x.shape, sample_covariance=True
    )
    covariance = torch.cov(torch.stack([x.flatten(), y.flatten()]))  # n - 1
    mu_x, mu_y = x.mean(), y.mean()
    expected = (2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4)
    expected = expected * (2 * covariance[0, 1] + 9e-4) / (covariance[0, 0] + covariance[1, 1] + 9e-4)
    assert n == 105
    torch.testing.assert_close(ones, expected, rtol=1e-12, atol=0)
