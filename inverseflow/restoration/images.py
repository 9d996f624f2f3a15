"""Named sets of images: photographs that installed packages bring with them, or a folder.

Images are float32 arrays (channel, y, x) on the scale 0..1, whatever 8 or 16 bits the file has.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np

from inverseflow.core.images import ImageError, open_image
from inverseflow.core.images import image_files as files_of_image
from inverseflow.core.settings import expand_variables

SHIPPED = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "rocket.jpg"),
)
"""Photographs of scikit-image, test images for the default run."""
ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
LUMINANCE = np.array(
    [0.299, 0.587, 0.114], np.float32
)  # ITU-R BT.601, as Pillow and MATLAB turn colours grey
KERNELS = (".mat", ".npy", ".npz")  # beside images of one kernel
SCALES = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def image_files(images, key="images"):
    """Sorted files of a set: "shipped" or a folder, in which `${VARIABLES}` are filled in.

    Raises ImageError when the folder does not exist or holds no image.
    """
    if images == "shipped":
        folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
        return [folder / name for name in SHIPPED]
    folder = Path(expand_variables(images, key))
    if not folder.is_dir():
        raise ImageError(f"{key}: no folder {folder}; give a folder of images, or shipped")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in ENDINGS)
    if not files:
        raise ImageError(f"{key}: no image in {folder}; expected files ending in {', '.join(ENDINGS)}")
    return files


def chosen_files(images, names=(), key="data"):
    """{name: file} of some images of a set, in this order; all when no names are given.

    Raises ImageError for a name that is not in the set.
    """
    files = {os.path.splitext(f.name)[0]: f for f in image_files(images, f"{key}.images")}
    for name in names:
        if name not in files:
            raise ImageError(f"{key}.names: expected some of {', '.join(files)}, got {name!r}")
    return {name: files[name] for name in names or files}


def files_of(path):
    """Files of an image, a Zarr store, a folder of images or pairs, a file of kernels. Raises ImageError."""
    path = Path(os.path.expandvars(str(path)))
    if path.suffix.lower() in KERNELS and path.is_file():
        return [path]
    if (path / "sharp").is_dir() and (path / "degraded").is_dir():
        return [file for part in ("sharp", "degraded") for file in image_files(str(path / part), "pairs")]
    marks = {"zarr.json", ".zarray", ".zgroup"}
    if path.is_dir() and not marks & {file.name for file in path.iterdir()}:
        return image_files(str(path), "path")
    return files_of_image(path)


def read_image(path, colour=None):
    """An image, float32 (channel, y, x) on 0..1.

    Parameters
    ----------
    path : 8- or 16-bit PNG, TIFF or JPEG; TIFF in float32 is taken as it is
    colour : True for three channels (a grey image three times), False for one; None: as the file has

    Raises ImageError that names the file when it cannot be read.
    """
    image = on_unit_scale(open_image(path).data)
    if colour is False and len(image) == 3:
        image = np.tensordot(LUMINANCE, image, 1)[None]
    if colour and len(image) == 1:
        image = np.repeat(image, 3, 0)
    if not np.isfinite(image).all():
        raise ImageError(f"{Path(path).name}: holds values that are NaN or infinite; replace them first")
    return image


def on_unit_scale(image):
    """Pixels (y, x) or (channel, y, x) of 8 or 16 bit as float32 (channel, y, x) on 0..1; float32 stays."""
    image = np.asarray(image)
    image = image if image.ndim == 3 else image[None]
    return image.astype(np.float32) / np.float32(SCALES.get(image.dtype, 1))


def read_set(images, colour=None, key="images"):
    """{file name without ending: image} of a set, in the order of the names."""
    return {os.path.splitext(f.name)[0]: read_image(f, colour) for f in image_files(images, key)}


def middle(image, size):
    """The middle size x size pixels of an image (channel, y, x), or what there is of them."""
    first = [max(0, (n - size) // 2) for n in image.shape[1:]]
    return image[:, first[0] : first[0] + size, first[1] : first[1] + size]


def resized(image, scale):
    """An image (channel, y, x) made smaller by bicubic interpolation that averages what it drops (Pillow)."""
    from PIL import Image

    if scale == 1:
        return image
    size = tuple(max(1, round(n * scale)) for n in image.shape[:0:-1])
    planes = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)) for plane in image]
    return np.stack(planes).clip(0, 1)
