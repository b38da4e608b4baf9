"""The interfaces of other packages, computed by ssimloss: one import changes.

    from ssimloss.compat.pytorch_msssim import SSIM, MS_SSIM, ssim, ms_ssim   # 1.0.0
    from ssimloss.compat.kornia import SSIMLoss, MS_SSIMLoss, ssim_loss, ssim, SSIM   # 0.9.0, and before
    from ssimloss.compat.kornia import SSIM3DLoss, ssim3d_loss, ssim3d, SSIM3D
    from ssimloss.compat.fused_ssim import fused_ssim, fused_l1_ssim_loss, fused_ssim3d
    from ssimloss.compat.torchmetrics import structural_similarity_index_measure   # 1.9.0, and multiscale_...
    from ssimloss.compat.piq import SSIMLoss, MultiScaleSSIMLoss, ssim, multi_scale_ssim   # 0.8.0
    from ssimloss.compat.piqa import SSIM, MS_SSIM, ssim, ms_ssim   # 1.3.2
    from ssimloss.compat.gaussian_splatting import ssim   # utils/loss_utils.py of Kerbl et al. 2023
    from ssimloss.compat.skimage import structural_similarity   # scikit-image 0.26.0, numpy in, number out

There are no submodules: of `kornia.losses.SSIMLoss` write `SSIMLoss`, imported as above.

Names, the order of arguments, defaults, the kinds of errors and the numbers are theirs; a checkpoint that
holds their buffers loads strictly. Theirs are also the traps: a data range of 255, images that are halved
first, a gradient that is 0 where a similarity is clamped. New code takes ssimloss itself. Each module says
where it differs.

What is not served yet raises NotImplementedError: arrays with four spatial dimensions, MS-SSIM of volumes but
torchmetrics', windows that are neither Gaussian nor uniform.
"""
