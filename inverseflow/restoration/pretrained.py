"""Networks of resources/weights: denoisers, <form>_<gray or colour>.safetensors, and a diffusion prior."""

import shutil
from pathlib import Path

from inverseflow.core.stores import replacing
from inverseflow.core.weights import SHIPPED, WeightsError, card_path, read_card, shipped

from .denoisers import FORMS

PRIOR = "photographs32"


def pretrained():
    """Their names, sorted."""
    return sorted(p.stem for p in SHIPPED.glob("*.safetensors") if p.stem.split("_")[0] in FORMS)


def copy_pretrained(form, n_channel, output):
    """Copy weights and card of a form to `output`; returns the card. WeightsError when there are none."""
    path = shipped(f"{form}_{'gray' if n_channel == 1 else 'colour'}")
    if path is None:
        raise WeightsError(
            f"train.weights: pretrained: no {form} of {n_channel} channels comes with the package, "
            f"expected one of {', '.join(pretrained())}; set train.weights: train"
        )
    return _copied(path, output)


def copy_prior(output):
    """Copy weights and card of the diffusion prior to `output`; returns the card. WeightsError when none."""
    path = shipped(PRIOR)
    if path is None:
        raise WeightsError(
            f"diffusion.prior.weights: pretrained: no {PRIOR} comes with the package; set "
            "diffusion.prior.weights: train"
        )
    return _copied(path, output)


def _copied(path, output):
    for source, target in ((path, Path(output)), (card_path(path), card_path(output))):
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    return read_card(output)
