"""Faces for benchmarks: 10,000 for training and 500 of other people for tests, grey, from sheets of 64 x 64.

Labeled Faces in the Wild, for research only: neither they nor what is trained on them is shipped. They lie in
`images/faces_lfw64` of the folder that INVERSEFLOW_DATA names.
"""

import hashlib

import numpy as np

from inverseflow.core.settings import expand_variables
from inverseflow.restoration.images import read_image

FOLDER = "${INVERSEFLOW_DATA}/images/faces_lfw64"
SIDE = 64
HELD_OUT_PER_MILLE = 50  # of the people in the training set, for validation


def faces(split, size=32):
    """Faces, float32 (face, 1, size, size) on 0..1, means of blocks of the 64 x 64 pixels.

    split : train, validation (people of the training set that `train` leaves out) or test (other people)
    """
    from pathlib import Path

    if split not in ("train", "validation", "test"):
        raise ValueError(f"faces: expected train, validation or test, got {split!r}")
    folder = Path(expand_variables(FOLDER, "faces"))
    part = "test" if split == "test" else "train"
    names = (folder / f"{part}_names.txt").read_text().split()
    files = [folder / "test.png"] if part == "test" else sorted(folder.glob("train_*.jpg"))
    found = np.concatenate([_cells(read_image(f, colour=False)[0]) for f in files])
    if len(found) != len(names):
        raise ValueError(f"{folder}: expected {len(names)} faces, as many as names, got {len(found)}")
    if part == "train":
        out = np.array([_draw(name) < HELD_OUT_PER_MILLE for name in names])
        found = found[out if split == "validation" else ~out]
    k = SIDE // size
    return found.reshape(len(found), 1, size, k, size, k).mean((3, 5), dtype=np.float32)


def _cells(sheet):
    """A sheet (y, x) as its faces (face, SIDE, SIDE), row by row."""
    rows, cols = (n // SIDE for n in sheet.shape)
    return sheet.reshape(rows, SIDE, cols, SIDE).swapaxes(1, 2).reshape(-1, SIDE, SIDE)


def _draw(name):
    """0..999, the same for all pictures of a person: Jane_Doe_0001.jpg is one of Jane_Doe."""
    person = name.rsplit("_", 1)[0]
    return int(hashlib.sha1(f"held out: {person}".encode()).hexdigest(), 16) % 1000
