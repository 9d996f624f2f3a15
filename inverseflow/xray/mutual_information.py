"""Affine registration by Mattes mutual information (SimpleITK), over several resolutions."""

import numpy as np

from .alignment import shrunk
from .grey import grey


def most_information(fixed, moving, matrix, offset, levels=(4, 2, 1), bins=48, share=0.3, longest=1024):
    """The affine map of most mutual information near a start.

    Parameters
    ----------
    fixed (1, y, x), moving (channel, y, x) float32; of colours the luminance is taken
    matrix (2, 2), offset (2,) : pixel p of fixed is pixel matrix p + offset of moving, rows first
    levels : pixels of the copies per pixel at each resolution, coarse to fine
    bins : of the joint histogram; share of the pixels that are drawn for it
    longest : pixels a side of the copies that are compared

    Returns (matrix, offset, mutual information in nats); the start, and 0, when nothing overlaps.
    """
    import SimpleITK as sitk

    gray = grey(moving)[None] if len(moving) == 3 else moving
    small, f = shrunk(fixed, longest)
    other, g = shrunk(gray, longest)
    low, high = np.percentile(small, (0.5, 99.5))
    images = []
    for image, factor in ((np.clip(small[0], low, high), f), (other[0], g)):
        picture = sitk.GetImageFromArray(np.ascontiguousarray(image, np.float32))
        picture.SetSpacing(factor[::-1].tolist())
        picture.SetOrigin(((factor - 1) / 2)[::-1].tolist())
        images.append(picture)
    middle = (np.array(fixed.shape[1:]) - 1) / 2
    affine = sitk.AffineTransform(2)
    affine.SetCenter(middle[::-1].tolist())
    affine.SetMatrix(matrix[::-1, ::-1].ravel().tolist())
    affine.SetTranslation((matrix @ middle + offset - middle)[::-1].tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(bins)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(share, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(levels))
    method.SetSmoothingSigmasPerLevel([max(level / 2, 0.7) for level in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(affine, inPlace=True)
    try:
        method.Execute(*images)
    except RuntimeError:  # no overlap is left
        return matrix, offset, 0.0
    matrix = np.array(affine.GetMatrix()).reshape(2, 2)[::-1, ::-1]
    offset = np.array(affine.GetTranslation())[::-1] + middle - matrix @ middle
    return matrix, offset, -float(method.GetMetricValue())
