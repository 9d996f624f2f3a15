"""Maps through the shifts of tiles hold against wrong tiles; shifts of edges are found to a tenth."""

import numpy as np
import pytest
from scipy import ndimage

from inverseflow.xray import alignment, tile_fit
from inverseflow.xray.registration import Registration

SHAPE = (300, 400)


def tiles_of(shift, wrong=0.0, noise=0.1, seed=0, n=(11, 15)):
    """Tiles on a grid with the shift (function of p), a share of which points anywhere within 8 pixels."""
    rng = np.random.default_rng(seed)
    p = np.stack(np.meshgrid(*(np.linspace(40, s - 41, k) for s, k in zip(SHAPE, n)), indexing="ij"), -1)
    p = p.reshape(-1, 2)
    d, score = shift(p) + noise * rng.standard_normal(p.shape), np.full(len(p), 7.0)
    bad = rng.random(len(p)) < wrong
    d[bad], score[bad] = rng.uniform(-8, 8, (bad.sum(), 2)), rng.uniform(3, 5, bad.sum())
    return np.c_[p, d, score]


def frame():
    y, x = np.meshgrid(*(np.linspace(0, n - 1, 9) for n in SHAPE), indexing="ij")
    return np.stack([y.ravel(), x.ravel()], axis=-1)


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_affine_map_is_found_among_wrong_tiles(wrong):
    true = np.array([[0.004, -0.006], [0.007, 0.002]])

    def shift(p):
        return p @ true.T + [1.5, -2.5]

    tiles = tiles_of(shift, wrong)
    matrix, offset, used = tile_fit.affine(tiles)
    error = np.hypot(*(frame() @ matrix.T + offset - shift(frame())).T)
    assert error.max() < 0.2  # 80 tiles of 0.1 pixels leave 0.03 rms, thrice that in the corners
    assert used[tiles[:, 4] < 6].sum() < 0.1 * used.sum()
    estimate = tile_fit.disagreement(tiles, SHAPE)
    assert 0.2 * error.mean() < estimate < 5 * max(error.mean(), 0.02)


def test_smooth_bend_is_found():
    def shift(p):
        return 3 * np.stack([np.sin(p[:, 1] / 130), np.cos(p[:, 0] / 110)], axis=-1)

    knots, spacing, _ = tile_fit.bend(tiles_of(shift, 0.2, 0.05), SHAPE, 4)
    found = Registration(np.eye(2), np.zeros(2), SHAPE, SHAPE, knots, spacing)
    inner = frame()[(np.abs(frame() / SHAPE - 0.5) < 0.4).all(1)]  # tiles reach no farther
    error = np.hypot(*(found.bend(inner) - shift(inner)).T)
    assert np.sqrt((error**2).mean()) < 0.3
    again = Registration.of(found.as_dict())
    np.testing.assert_array_equal(again.source(inner), found.source(inner))


def test_a_bend_of_equal_knots_is_a_shift():
    knots, spacing = np.full((2, 6, 7), 2.5), np.array([100.0, 100.0])
    bent = Registration(np.eye(2), np.zeros(2), SHAPE, SHAPE, knots, spacing).bend(frame())
    np.testing.assert_allclose(bent, 2.5, rtol=1e-12)


@pytest.mark.parametrize("shift", [(0, 0), (2.3, -3.6)])
def test_tiles_see_a_shift_whatever_the_sign_of_edges(shift):
    rng = np.random.default_rng(3)
    picture = ndimage.gaussian_filter(rng.standard_normal((200, 240)), 2)
    moved = -(np.abs(ndimage.shift(picture, shift, mode="reflect")) ** 1.0)  # another contrast, sign turned
    fixed = np.abs(picture)
    tiles = alignment.tile_shifts(fixed[None], moved[None], np.ones(picture.shape), 64)
    assert np.abs(np.median(tiles[:, 2:4], axis=0) - shift).max() < 0.1
    weight = np.ones(picture.shape)
    aligned = ndimage.shift(moved, -np.array(shift), mode="reflect")
    right = alignment.score_of(fixed[None], aligned[None], weight)
    other = np.abs(ndimage.gaussian_filter(rng.standard_normal((200, 240)), 2))
    assert right > 20 and alignment.score_of(other[None], aligned[None], weight) < 5


def test_the_search_names_how_a_picture_is_turned():
    picture = ndimage.gaussian_filter(np.random.default_rng(4).standard_normal((3, 120, 160)), (0, 2, 2))
    weight = np.ones((120, 160))
    for what, changed in (
        ("mirrored left to right", picture[..., ::-1]),
        ("mirrored top to bottom", picture[..., ::-1, :]),
        ("turned by 180 degrees", picture[..., ::-1, ::-1]),
    ):
        score, _, _, flipped = alignment.search(picture, changed, weight, [0.98, 1.0, 1.02], [-1.5, 0, 1.5])
        assert max(flipped, key=flipped.get) == what and flipped[what] > 20 > 2 * score
