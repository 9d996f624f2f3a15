"""What radiograph and colours of paint have in common, learned from paintings with nothing concealed.

Two parts, one file: the coupled convolutional dictionary (atoms over x, r, g, b with common codes), and the
colour table (attenuation of colours: mean over paintings, and how paintings differ). Virtual paintings are of
the same simulator as those that figures are reported on, with other designs and palettes: where those are
separated with it, say so (inverse crime). With `samples`, your own paintings are learned from instead.
"""

from dataclasses import dataclass

import numpy as np
import torch

from inverseflow.core.dictionaries import learn_dictionary, sample_patches
from inverseflow.core.stores import open_store
from inverseflow.core.weights import WeightsError, read_card, save_weights

from .colour import ColourPrior, learn_colours
from .tiles import jittered

CHANNELS = ("x", "r", "g", "b")
PATCH_PX, WINDOW_PX = 64, 192
PALETTES = ("dutch", "romantic", "baroque", "early", "academic", "grisaille")
DESIGNS = ("cat", "landscape", "flowers", "rocket", "portrait", "motorcycle", "ornament")
"""Of the tuning paintings; those of the test paintings are never learned from."""


@dataclass(frozen=True)
class Dictionary:
    """atoms : tensor (4, K, h, w) over x, r, g, b, of what is left without the smooth part; colours :
    ColourPrior; smooth_px : sigma of the smooth part, pixels."""

    atoms: torch.Tensor
    colours: ColourPrior
    smooth_px: float


def load_dictionary(path):
    """The `Dictionary` of a file; WeightsError when it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(path)
    try:
        values, smooth_px = load_file(path), card["settings"]["smooth_px"]
        atoms = values.pop("atoms")
        prior = ColourPrior(**{k: v.squeeze().numpy() for k, v in values.items()})
        return Dictionary(atoms, prior, smooth_px)
    except (SafetensorError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: expected a dictionary of x-ray separation ({error}); learn it anew"
        ) from None


def learn(paintings, settings, output, code=None, command=None):
    """Learn a dictionary and write it with its card.

    paintings : paths of calibrated stores with x (y, x) and rgb (channel, y, x) and nothing concealed; when
    there is none, virtual paintings. Large ones are learned from windows. The card's figures are of what was
    not learned from: the right quarter of the last painting, or a virtual painting more.
    settings : DictionarySettings. code : digest, command : line that learned it, for the card.
    """
    source = [str(p).rsplit("/", 2)[-2] for p in paintings] or "virtual paintings (synthetic)"
    windows, unseen = windows_of(paintings, settings) if paintings else virtual_windows(settings)
    dictionary, curve = learn_from(windows, settings)
    values = {"atoms": dictionary.atoms} | {
        k: torch.from_numpy(np.ascontiguousarray(v, np.float32)) for k, v in vars(dictionary.colours).items()
    }
    card = {
        "learned_from": source,
        "n_window": len(windows),
        "settings": settings.model_dump(mode="json"),
        "code": code,
        "command": command,
        "curve": [float(c) for c in curve],
        "figures": figures(dictionary, *unseen, settings),
    }
    network = {"form": "coupled dictionary and colour table", "channels": list(CHANNELS)}
    save_weights(output, values, network | {"n_atom": settings.n_atom, "size": settings.size}, card)


def learn_from(windows, settings):
    """(Dictionary, cost per round) from a list of (x (y, x), rgb (3, y, x))."""
    prior = learn_colours([(x, rgb) for x, rgb in windows], settings.n_colour, settings.seed)
    images = [details(x, rgb, settings.smooth_px).numpy() for x, rgb in windows]
    atoms, curve = learn_dictionary(
        sample_patches(images, PATCH_PX, 4, settings.seed),
        settings.n_atom,
        settings.size,
        settings.threshold,
        settings.n_iter,
        n_code=25,
        seed=settings.seed,
    )
    return Dictionary(atoms.float(), prior, settings.smooth_px), curve


def details(x, rgb, smooth_px):
    """(4, y, x) tensor: x and colours without their smooth part, as in the objective of `csc`."""
    from .csc import Detail

    images = torch.from_numpy(np.concatenate([x[None], rgb]).astype(np.float32))
    return Detail(x.shape, smooth_px)(images)


def figures(dictionary, x, rgb, settings):
    """How well a painting that was not learned from is drawn: variance explained, correlation."""
    from inverseflow.core.sparse_coding import csc_admm

    s = details(x, rgb, settings.smooth_px)[None]
    z = csc_admm(dictionary.atoms, s, settings.threshold, n_iter=60, tol=None)
    from inverseflow.core.convolution import Convolution

    drawn = Convolution(dictionary.atoms, x.shape)(z)
    explained = 1 - ((s - drawn)[0] ** 2).sum((1, 2)) / (s[0] ** 2).sum((1, 2))
    guess = dictionary.colours.mean_map()(rgb)
    return {
        "explained": {name: round(float(v), 4) for name, v in zip(CHANNELS, explained, strict=True)},
        "codes_per_pixel": round(float((z != 0).sum() / x.size), 3),
        "table_correlation": round(float(np.corrcoef(guess.ravel(), x.ravel())[0, 1]), 4),
    }


def virtual_windows(settings):
    """[(x, rgb)] of virtual paintings, and one more that is held out."""
    return [_virtual_painting(settings, i, WINDOW_PX) for i in range(settings.n_painting)], held_out(settings)


def held_out(settings):
    """x and rgb of a virtual painting not learned from."""
    return _virtual_painting(settings, len(DESIGNS) * len(PALETTES), 128)


def _virtual_painting(settings, i, size):
    """x and rgb of a painting with nothing concealed, the i-th."""
    from .painting import virtual_painting
    from .settings import SimulateSettings

    rng = np.random.default_rng([settings.seed, 2, i])
    painting = virtual_painting(
        SimulateSettings(
            n_row=size,
            n_col=size,
            seed=5000 + i,
            visible=DESIGNS[(i + i // len(PALETTES)) % len(DESIGNS)],
            concealed=None,
            palette=PALETTES[i % len(PALETTES)],
            support=("canvas", "panel")[i // 2 % 2],
            paint_um=float(rng.uniform(25, 45)),
        )
    )
    return painting["x"].values, painting["rgb"].values


def windows_of(paintings, settings):
    """[(x, rgb)] of windows from a jittered grid over each painting, and a window that none of them overlaps.

    The last one comes from the right quarter of the last painting, where no window is learned from. Windows
    that hold pixels without a value are left out.
    """
    rng, found = np.random.default_rng([settings.seed, 3]), []
    for path in paintings:
        data = open_store(path)
        if "rgb" not in data:
            raise ValueError(f"{path}: expected x and rgb to learn a dictionary from, got no rgb")
        rows, cols = data["x"].shape
        free = cols - cols // 4 if path == paintings[-1] else cols
        found += [_window(data, place) for place in jittered((rows, free), WINDOW_PX, 4, rng)]
    side = min(WINDOW_PX, cols - free)
    places = [
        (slice(a, min(a + WINDOW_PX, rows)), slice(cols - side, cols)) for a in range(0, rows, WINDOW_PX)
    ]
    unseen = [pair for pair in (_window(data, place) for place in places) if _whole(pair, settings.size)]
    windows = [pair for pair in found if _whole(pair, PATCH_PX)]
    if not windows or not unseen:
        names = ", ".join(map(str, paintings))
        raise ValueError(
            f"{names}: expected 64 x 86 pixels or more with x and rgb, three quarters to learn from and a "
            "quarter to judge by, got none; name other samples, or none for virtual paintings"
        )
    return windows, max(unseen, key=lambda pair: pair[0].size)


def _window(data, place):
    x, rgb = data["x"][place].values, data["rgb"][(slice(None), *place)].values
    return x.astype(np.float32), rgb.astype(np.float32)


def _whole(pair, size):
    """True for windows of this size or more in which every pixel has a value."""
    return min(pair[0].shape) >= size and all(np.isfinite(image).all() for image in pair)


def main():
    """python -m inverseflow.xray.dictionary OUTPUT.safetensors    learns the one of the package"""
    import sys

    from inverseflow.core.provenance import ROOT, code_digest

    from .settings import DictionarySettings

    torch.set_num_threads(1)
    code = code_digest(ROOT / "scripts" / "xray" / "dictionary.py")
    learn(
        [],
        DictionarySettings(),
        sys.argv[1],
        code,
        "python -m inverseflow.xray.dictionary OUTPUT.safetensors",
    )


if __name__ == "__main__":
    main()
