"""LPIPS: how different two images look to a network that was trained to tell things apart.

Features of five layers of AlexNet, divided by their length in every place; their squared differences,
weighted by channel as human judgements ask for, and summed. Source: Zhang et al., CVPR 2018, version 0.1. The
weights are the user's file; none come along. Tested to agree with the package lpips 0.1.4.
"""

import torch
import torch.nn.functional as F

from inverseflow.core.settings import expand_variables

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of red, green and blue on -1..1
LAYERS = (  # channels in and out, side of the kernel, stride, padding; halved after it?
    (3, 64, 11, 4, 2, True),
    (64, 192, 5, 1, 2, True),
    (192, 384, 3, 1, 1, False),
    (384, 256, 3, 1, 1, False),
    (256, 256, 3, 1, 1, False),
)
NAMES = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")


class Lpips:
    """lpips(a, b) -> number for images (channel, y, x) on 0..1, NaN below 32 x 32 pixels.

    A grey image stands for three equal colours.

    path : the state of `lpips.LPIPS(net="alex")`, saved by torch.save. Raises ValueError when it is another.
    """

    def __init__(self, path):
        path = expand_variables(path, "evaluate.lpips")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no type of its own for files that it does not know
            raise ValueError(f"evaluate.lpips: {path} is no file of torch.save: {error}") from None
        self.layers = []
        for i, (name, (n_in, n_out, side, *_)) in enumerate(zip(NAMES, LAYERS, strict=True)):
            wanted = {
                f"net.{name}.weight": (n_out, n_in, side, side),
                f"net.{name}.bias": (n_out,),
                f"lin{i}.model.1.weight": (1, n_out, 1, 1),
            }
            for key, shape in wanted.items():
                found = tuple(state[key].shape) if key in state else "nothing"
                if found != shape:
                    raise ValueError(
                        f"evaluate.lpips: expected {key} of shape {shape} in {path}, got {found}; save the "
                        'state of lpips.LPIPS(net="alex")'
                    )
            self.layers.append([state[key].float() for key in wanted])

    @torch.no_grad()
    def __call__(self, a, b):
        if min(a.shape[1:]) < 32:
            return float("nan")
        a, b = (self.features(torch.as_tensor(image, dtype=torch.float32)) for image in (a, b))
        return float(sum((w * (p - q).square()).sum(1).mean() for p, q, (_, _, w) in zip(a, b, self.layers)))

    def features(self, image):
        """Unit vectors (1, channel, y, x) of every layer."""
        colours = image.expand(3, -1, -1)[None]
        x = (2 * colours - 1 - torch.tensor(SHIFT).view(3, 1, 1)) / torch.tensor(SCALE).view(3, 1, 1)
        found = []
        for (weight, bias, _), (_, _, _, stride, padding, halved) in zip(self.layers, LAYERS):
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
            x = F.max_pool2d(x, 3, 2) if halved else x
        return found
