"""The library of template spectra that a scan is written in: elements, scatter, sum peaks, continuum."""

import json
from dataclasses import dataclass, replace

import numpy as np

from .response import Response

KINDS = ("element", "scatter", "pileup", "background")


@dataclass(frozen=True)
class Library:
    """Template spectra of one detector and scan.

    names, kinds (group,): "Pb-L" ... and one of KINDS; elements have names "Symbol-Shell".
    shapes (n_channels, group): spectra of unit area, background columns included.
    first, last: channels that a fit uses, both included.
    reference (n_channels,): mean counts per spectrum of the scan, from which common weights are made.
    nuisance (mode, n_channels, group): one-sigma errors of the shapes that act alike in one pixel (drift of
    the axis, tail, line ratios); their effect on the areas is added to the statistical error.
    thresholds: {"pixel": significance above which a group counts as present in a pixel, ...}.
    """

    names: tuple
    kinds: tuple
    shapes: np.ndarray
    first: int
    last: int
    reference: np.ndarray
    response: Response
    nuisance: np.ndarray | None = None
    thresholds: dict | None = None

    def __post_init__(self):
        n_channels, n_groups = self.shapes.shape
        if not len(self.names) == len(self.kinds) == n_groups:
            raise ValueError(f"{len(self.names)} names and {len(self.kinds)} kinds for {n_groups} templates")
        if len(set(self.names)) != n_groups:
            raise ValueError(f"template names are not unique: {sorted(self.names)}")
        if not 0 <= self.first < self.last < n_channels:
            raise ValueError(f"fit range {self.first} to {self.last} does not fit {n_channels} channels")
        if not np.isfinite(self.shapes).all():
            bad = [n for n, ok in zip(self.names, np.isfinite(self.shapes).all(0)) if not ok]
            raise ValueError(f"templates with values that are not finite: {bad}")

    @property
    def is_background(self):
        return np.array([k == "background" for k in self.kinds])

    @property
    def groups(self):
        """Names of the columns that are not continuum, in order."""
        return tuple(n for n, k in zip(self.names, self.kinds) if k != "background")

    @property
    def elements(self):
        """Symbols of the elements, in order."""
        found = (n.split("-")[0] for n, k in zip(self.names, self.kinds) if k == "element")
        return tuple(dict.fromkeys(found))

    def index(self, name):
        return self.names.index(name)

    def subset(self, names):
        """The library with these elements, and all that is no element: scatter, sum peaks, continuum."""
        missing = sorted(set(names) - set(self.names))
        if missing:
            raise ValueError(f"no template for {missing}; the library has {list(self.names)}")
        keep = [i for i, (n, k) in enumerate(zip(self.names, self.kinds)) if k != "element" or n in names]
        return replace(
            self,
            names=tuple(self.names[i] for i in keep),
            kinds=tuple(self.kinds[i] for i in keep),
            shapes=self.shapes[:, keep],
            nuisance=None if self.nuisance is None else self.nuisance[..., keep],
        )

    def save(self, path):
        """Write an .npz that is the same, byte for byte, for the same library."""
        card = {
            "names": self.names,
            "kinds": self.kinds,
            "first": self.first,
            "last": self.last,
            "response": self.response.to_dict(),
            "thresholds": self.thresholds or {},
        }
        nuisance = np.zeros((0, *self.shapes.shape), np.float32) if self.nuisance is None else self.nuisance
        with open(path, "wb") as f:
            np.savez_compressed(
                f,
                shapes=self.shapes.astype(np.float32),
                nuisance=nuisance.astype(np.float32),
                reference=np.asarray(self.reference, np.float64),
                card=np.frombuffer(json.dumps(card, sort_keys=True).encode(), np.uint8),
            )

    @classmethod
    def load(cls, path):
        with np.load(path) as f:
            card = json.loads(bytes(f["card"]))
            shapes, reference, nuisance = f["shapes"], f["reference"], f["nuisance"]
        return cls(
            names=tuple(card["names"]),
            kinds=tuple(card["kinds"]),
            shapes=shapes,
            first=card["first"],
            last=card["last"],
            reference=reference,
            response=Response.from_dict(card["response"]),
            nuisance=nuisance if len(nuisance) else None,
            thresholds=card["thresholds"],
        )


def present_groups(elements):
    """Names of the line groups to map, from a CSV of `detect`: those present, and those that cannot be told
    from a rival ("ambiguous")."""
    import pandas as pd

    table = pd.read_csv(elements, keep_default_na=False)  # "NA" would be a missing value
    return table.loc[table["decision"].isin(["present", "ambiguous"]), "group"].tolist()
