"""What radiograph and colours of paint have in common, learned from paintings with nothing concealed.

Three parts, one file: the coupled convolutional dictionary (atoms over x, r, g, b with common codes); the
colour table (attenuation of colours: mean over paintings, and how paintings differ); and the refiner, which
corrects what the colours say of a layer, trained on mixes of two of the paintings. Virtual paintings (see
`practice`) are of the same simulator as those that figures are reported on, with other designs and palettes:
where those are separated with it, say so (inverse crime). With `samples`, your own paintings are learned
from instead.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from inverseflow.core.dictionaries import learn_dictionary, sample_patches
from inverseflow.core.stores import key_of, open_store
from inverseflow.core.weights import WeightsError, read_card, save_weights

from .colour import ColourPrior, learn_colours
from .refiner import ALIGN, REFINER, Mixer, Refiner, load_refiner, mixed, pairs, train_refiner
from .tiles import jittered

CHANNELS = ("x", "r", "g", "b")
PATCH_PX, WINDOW_PX = 64, 256


@dataclass(frozen=True)
class Dictionary:
    """atoms : tensor (4, K, h, w) over x, r, g, b, of what is left without the smooth part; colours :
    ColourPrior; refiner : Refiner or None; smooth_px : sigma of the smooth part, pixels."""

    atoms: torch.Tensor
    colours: ColourPrior
    refiner: Refiner | None
    smooth_px: float


def load_dictionary(path):
    """The `Dictionary` of a file; WeightsError when it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(path)
    try:
        values, smooth_px = load_file(path), card["settings"]["smooth_px"]
        refiner = load_refiner(path) if any(k.startswith(REFINER) for k in values) else None
        values = {k: v for k, v in values.items() if not k.startswith(REFINER)}
        atoms = values.pop("atoms")
        prior = ColourPrior(**{k: v.squeeze().numpy() for k, v in values.items()})
        return Dictionary(atoms, prior, refiner, smooth_px)
    except (SafetensorError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: expected a dictionary of x-ray separation ({error}); learn it anew"
        ) from None


def learn(paintings, settings, output, engine, code=None, command=None):
    """Learn a dictionary and write it with its card.

    paintings : paths of calibrated stores with x (y, x) and rgb (channel, y, x) and nothing concealed; when
    there is none, virtual paintings. Large ones are learned from windows. The card's figures are of what was
    not learned from: the right quarter of the last painting, or virtual paintings more.
    settings : DictionarySettings. engine : of `core.compute`, paints and mixes. code : digest, command : line
    that learned it, for the card. The training of the refiner goes on from `<output>.checkpoint`.
    """
    source = [str(p).rsplit("/", 2)[-2] for p in paintings] or "virtual paintings (synthetic)"
    windows, unseen = windows_of(paintings, settings) if paintings else virtual_windows(settings, engine)
    checkpoint = Path(f"{output}.checkpoint")
    dictionary, curves = learn_from(windows, settings, engine, checkpoint, key_of(source, code))
    values = {"atoms": dictionary.atoms} | {
        k: torch.from_numpy(np.ascontiguousarray(v, np.float32)) for k, v in vars(dictionary.colours).items()
    }
    if dictionary.refiner:
        values |= {REFINER + k: v for k, v in dictionary.refiner.state_dict().items()}
    card = {
        "learned_from": source,
        "n_window": len(windows),
        "settings": settings.model_dump(mode="json"),
        "code": code,
        "command": command,
        "curves": curves,
        "figures": figures(dictionary, unseen, settings),
    }
    network = {"form": "coupled dictionary, colour table and refiner", "channels": list(CHANNELS)}
    save_weights(output, values, network | {"n_atom": settings.n_atom, "size": settings.size}, card)
    checkpoint.unlink(missing_ok=True)


def learn_from(windows, settings, engine, checkpoint=None, key=""):
    """(Dictionary, curves) from a list of (x (y, x), rgb (3, y, x), paint (y, x)).

    paint: x without support and noise where that is known, else x; colours and refiner learn it.
    """
    s = settings
    prior = learn_colours([(paint, rgb) for _, rgb, paint in windows], s.n_colour, s.seed)
    images = [details(x, rgb, s.smooth_px).numpy() for x, rgb, _ in windows]
    atoms, cost = learn_dictionary(
        sample_patches(images, PATCH_PX, 4, s.seed),
        s.n_atom,
        s.size,
        s.threshold,
        s.n_iter,
        n_code=25,
        seed=s.seed,
    )
    curves, refiner = {"dictionary": [float(c) for c in cost]}, None
    if s.n_mix and len(windows) > 1:
        side = min(min(x.shape) for x, *_ in windows) // ALIGN * ALIGN
        squares = [tuple(image[..., :side, :side] for image in window) for window in windows]
        mixes = list(engine.map(Mixer(prior, s.seed), pairs(squares, s.n_mix, s.seed), label="mix paintings"))
        refiner, steps = train_refiner(
            mixes, s.n_step, s.seed, checkpoint, key_of(key, s.model_dump(mode="json"))
        )
        curves["refiner"] = steps.thinned(200)
    return Dictionary(atoms.float(), prior, refiner, s.smooth_px), curves


def details(x, rgb, smooth_px):
    """(4, y, x) tensor: x and colours without their smooth part, as in the objective of `csc`."""
    from .csc import Detail

    images = torch.from_numpy(np.concatenate([x[None], rgb]).astype(np.float32))
    return Detail(x.shape, smooth_px)(images)


def figures(dictionary, unseen, settings):
    """What a dictionary makes of windows (x, rgb, paint) that were not learned from.

    Of the first: variance explained, codes used, correlation of the mean table with x. Of each mixed with the
    next: error of the visible layer by table and thickness, and refined, over the standard deviation of x.
    """
    from inverseflow.core.convolution import Convolution
    from inverseflow.core.sparse_coding import csc_admm

    x, rgb, _ = unseen[0]
    s = details(x, rgb, settings.smooth_px)[None]
    z = csc_admm(dictionary.atoms, s, settings.threshold, n_iter=60, tol=None)
    drawn = Convolution(dictionary.atoms, x.shape)(z)
    explained = 1 - ((s - drawn)[0] ** 2).sum((1, 2)) / (s[0] ** 2).sum((1, 2))
    guess = dictionary.colours.mean_map()(rgb)
    found = {
        "explained": {name: round(float(v), 4) for name, v in zip(CHANNELS, explained, strict=True)},
        "codes_per_pixel": round(float((z != 0).sum() / x.size), 3),
        "table_correlation": round(float(np.corrcoef(guess.ravel(), x.ravel())[0, 1]), 4),
    }
    if len(unseen) > 1:
        errors = [_errors(dictionary, a, b) for a, b in zip(unseen, unseen[1:], strict=False)]
        names = ("error_of_colours", "error_refined")
        found |= {
            name: [round(float(e), 4) for e in es] for name, es in zip(names, zip(*errors, strict=True))
        }
    return found


def _errors(dictionary, above, below):
    """Root mean square errors of x1, by colours alone and refined, over the standard deviation of the mix."""
    (x, rgb, paint), x = above, above[0] + below[2]
    mix = mixed(x, rgb, paint, dictionary.colours)
    images, target = mix["images"], mix["target"]
    found = [images[2] - target]
    if dictionary.refiner:
        correction = dictionary.refiner(torch.from_numpy(images)[None])[0, 0].numpy()
        found.append(found[0] + correction)
    return [e.std() / images[0].std() for e in found]


def virtual_windows(settings, engine):
    """[(x, rgb, x1)] of virtual paintings with nothing concealed, and some more that are held out."""
    numbers = range(settings.n_painting)
    return list(engine.map(Painter(settings.seed), numbers, label="paint")), held_out(settings)


def held_out(settings):
    """Windows of three virtual paintings not learned from."""
    return [Painter(settings.seed)(settings.n_painting + i) for i in range(3)]


@dataclass(eq=False)
class Painter:
    """x, rgb and x1 of the i-th virtual painting."""

    seed: int

    def __call__(self, i):
        from .painting import virtual_painting
        from .practice import random_painting

        painting = virtual_painting(random_painting(1000 * self.seed + i, WINDOW_PX, concealed=False))
        return tuple(painting[name].values for name in ("x", "rgb", "x1"))


def windows_of(paintings, settings):
    """[(x, rgb, x)] of windows from a jittered grid over each painting, and one that none of them overlaps.

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
    unseen = [w for w in (_window(data, place) for place in places) if _whole(w, settings.size)]
    windows = [w for w in found if _whole(w, PATCH_PX)]
    if not windows or not unseen:
        names = ", ".join(map(str, paintings))
        raise ValueError(
            f"{names}: expected 64 x 86 pixels or more with x and rgb, three quarters to learn from and a "
            "quarter to judge by, got none; name other samples, or none for virtual paintings"
        )
    return windows, [max(unseen, key=lambda window: window[0].size)]


def _window(data, place):
    x, rgb = data["x"][place].values, data["rgb"][(slice(None), *place)].values
    x = x.astype(np.float32)
    return x, rgb.astype(np.float32), x


def _whole(window, size):
    """True for windows of this size or more in which every pixel has a value."""
    return min(window[0].shape) >= size and all(np.isfinite(image).all() for image in window)


def main():
    """python -m inverseflow.xray.dictionary OUTPUT.safetensors    learns the one of the package"""
    import os
    import sys

    from inverseflow.core.compute import compute
    from inverseflow.core.provenance import ROOT, code_digest

    from .settings import DictionarySettings

    code = code_digest(ROOT / "scripts" / "xray" / "dictionary.py")
    command = "python -m inverseflow.xray.dictionary OUTPUT.safetensors"
    torch.set_num_threads(1)
    with compute("local", threads=int(os.environ.get("CORES", "2")), memory_mb=8000) as engine:
        learn([], DictionarySettings(), sys.argv[1], engine, code, command)


if __name__ == "__main__":
    main()
