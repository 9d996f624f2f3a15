"""Pigments of old and of nineteenth-century paintings: what they are made of, their colour, how they hide.

Formulae and densities are those of the compounds. Masstones (reflectance of thick layers in oil) and
scattering are round numbers after the usual descriptions of the pigments, their refractive index and grain:
typical, and not measured on any paint. Grounds, wood, linen and oil stand in the same table.
"""

from dataclasses import dataclass

BANDS_NM = (420, 460, 500, 540, 580, 620, 660, 700)
"""Centres of the eight bands, 40 nm wide, in which colours are computed."""

PIGMENT_VOLUME = 0.38
"""Share of a dry paint's volume that is pigment; the rest is oil."""


@dataclass(frozen=True)
class Pigment:
    """formula; density in g/cm3; scattering of a paint of it per mm; masstone reflectance in BANDS_NM."""

    formula: str
    density_g_cm3: float
    scattering_per_mm: float
    masstone: tuple


PIGMENTS = {
    "lead white": Pigment("Pb3C2O8H2", 6.8, 95, (0.80, 0.87, 0.90, 0.91, 0.92, 0.92, 0.92, 0.92)),
    "zinc white": Pigment("ZnO", 5.6, 80, (0.74, 0.92, 0.93, 0.94, 0.94, 0.94, 0.94, 0.94)),
    "chalk": Pigment("CaCO3", 2.7, 10, (0.52, 0.60, 0.66, 0.70, 0.73, 0.75, 0.76, 0.77)),
    "gypsum": Pigment("CaSO6H4", 2.32, 45, (0.80, 0.84, 0.86, 0.87, 0.88, 0.88, 0.88, 0.88)),
    "lead-tin yellow": Pigment("Pb2SnO4", 8.4, 75, (0.14, 0.27, 0.60, 0.76, 0.81, 0.83, 0.84, 0.84)),
    "naples yellow": Pigment("Pb2Sb2O7", 7.0, 70, (0.16, 0.24, 0.50, 0.68, 0.76, 0.78, 0.79, 0.80)),
    "chrome yellow": Pigment("PbCrO4", 6.1, 80, (0.06, 0.08, 0.24, 0.68, 0.80, 0.83, 0.84, 0.85)),
    "cadmium yellow": Pigment("CdS", 4.8, 70, (0.05, 0.07, 0.30, 0.74, 0.82, 0.84, 0.85, 0.86)),
    "vermilion": Pigment("HgS", 8.1, 70, (0.06, 0.06, 0.06, 0.07, 0.20, 0.62, 0.74, 0.77)),
    "red lead": Pigment("Pb3O4", 9.1, 75, (0.06, 0.06, 0.08, 0.16, 0.52, 0.74, 0.79, 0.80)),
    "azurite": Pigment("Cu3C2O8H2", 3.77, 16, (0.30, 0.40, 0.30, 0.16, 0.085, 0.06, 0.06, 0.08)),
    "ultramarine": Pigment("Na7Al6Si6O24S3", 2.4, 7, (0.26, 0.25, 0.10, 0.05, 0.035, 0.04, 0.08, 0.25)),
    "smalt": Pigment("Si12K4CoO27", 2.5, 5, (0.26, 0.27, 0.19, 0.12, 0.09, 0.09, 0.16, 0.30)),
    "cobalt blue": Pigment("CoAl2O4", 4.2, 18, (0.32, 0.36, 0.22, 0.09, 0.06, 0.06, 0.12, 0.34)),
    "prussian blue": Pigment("Fe7C18N18O15H30", 1.8, 6, (0.07, 0.075, 0.05, 0.035, 0.03, 0.03, 0.03, 0.03)),
    "malachite": Pigment("Cu2CO5H2", 4.0, 18, (0.13, 0.20, 0.36, 0.38, 0.23, 0.13, 0.10, 0.12)),
    "verdigris": Pigment("CuC4H8O5", 1.88, 6, (0.06, 0.14, 0.29, 0.25, 0.10, 0.05, 0.04, 0.05)),
    "green earth": Pigment("K1Fe2Mg1Si4O12H2", 2.6, 9, (0.13, 0.17, 0.23, 0.27, 0.25, 0.21, 0.19, 0.18)),
    "emerald green": Pigment("Cu4As6C4H6O16", 3.3, 30, (0.20, 0.34, 0.60, 0.52, 0.25, 0.13, 0.10, 0.12)),
    "yellow ochre": Pigment("Fe4Si2Al2K0.1O12", 3.2, 32, (0.08, 0.11, 0.19, 0.33, 0.46, 0.50, 0.50, 0.53)),
    "red ochre": Pigment("Fe6Si2Al2O16", 4.0, 40, (0.055, 0.06, 0.07, 0.09, 0.18, 0.30, 0.33, 0.35)),
    "burnt sienna": Pigment("Fe5Si2Al2O14", 3.6, 14, (0.04, 0.045, 0.055, 0.08, 0.16, 0.23, 0.26, 0.28)),
    "umber": Pigment("Fe4Mn1O9H3Ca0.2", 3.4, 16, (0.04, 0.05, 0.07, 0.09, 0.12, 0.135, 0.145, 0.155)),
    "bone black": Pigment("Ca5P3O13HC12", 2.3, 9, (0.025, 0.025, 0.025, 0.025, 0.025, 0.025, 0.026, 0.027)),
    "madder lake": Pigment("Al2C14H14O11", 1.6, 3, (0.07, 0.05, 0.03, 0.025, 0.06, 0.28, 0.48, 0.58)),
    "linseed oil": Pigment("C57H98O6", 0.93, 0.0, (0.5,) * 8),
    "wood": Pigment("C6H10O5", 0.55, 4, (0.16, 0.22, 0.30, 0.38, 0.45, 0.50, 0.53, 0.56)),
    "linen": Pigment("C6H10O5", 0.75, 6, (0.25, 0.32, 0.38, 0.43, 0.47, 0.50, 0.52, 0.54)),
}

PALETTES = {
    "venetian": (
        *("lead white", "lead-tin yellow", "vermilion", "ultramarine", "verdigris"),
        *("yellow ochre", "red ochre", "madder lake", "umber", "bone black"),
    ),
    "flemish": (
        *("lead white", "lead-tin yellow", "vermilion", "azurite", "malachite"),
        *("yellow ochre", "burnt sienna", "madder lake", "umber", "bone black"),
    ),
    "tuscan": (
        *("lead white", "yellow ochre", "red ochre", "vermilion", "azurite", "green earth"),
        *("umber", "bone black"),
    ),
    "spanish": (
        *("lead white", "naples yellow", "vermilion", "smalt", "green earth"),
        *("yellow ochre", "red ochre", "madder lake", "umber", "bone black"),
    ),
    "dutch": (
        *("lead white", "lead-tin yellow", "red lead", "smalt", "azurite", "green earth"),
        *("yellow ochre", "burnt sienna", "umber", "bone black"),
    ),
    "baroque": (
        *("lead white", "lead-tin yellow", "red lead", "ultramarine", "malachite"),
        *("yellow ochre", "red ochre", "burnt sienna", "bone black"),
    ),
    "early": (
        *("lead white", "lead-tin yellow", "vermilion", "azurite", "verdigris"),
        *("red ochre", "madder lake", "bone black"),
    ),
    "academic": (
        *("lead white", "naples yellow", "vermilion", "cobalt blue", "green earth"),
        *("yellow ochre", "red ochre", "umber", "bone black"),
    ),
    "grisaille": ("lead white", "yellow ochre", "umber", "bone black"),
    "romantic": (
        *("lead white", "naples yellow", "chrome yellow", "vermilion", "prussian blue"),
        *("yellow ochre", "burnt sienna", "umber", "bone black"),
    ),
    "impressionist": (
        *("lead white", "chrome yellow", "vermilion", "cobalt blue", "emerald green"),
        *("prussian blue", "red ochre", "madder lake", "bone black"),
    ),
    "modern": (
        *("zinc white", "cadmium yellow", "vermilion", "cobalt blue", "emerald green"),
        *("yellow ochre", "red ochre", "bone black"),
    ),
}
"""Pigments that a painter had at hand; the first is the white, the last the black."""


def pigments_of(palette):
    """Names of the pigments of a palette: of one in PALETTES, or the names themselves, white to black."""
    return PALETTES[palette] if isinstance(palette, str) else tuple(palette)
