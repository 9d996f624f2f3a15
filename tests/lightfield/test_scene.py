"""Neurons drawn on grids: volume, place, overlap, neuropil, neurites."""

from types import SimpleNamespace

import numpy as np
import pytest

from inverseflow.lightfield.morphology import MorphologyError, Tree, grow_tree, read_tree, read_trees
from inverseflow.lightfield.scene import Grid, Scene, beads
from inverseflow.lightfield.settings import SimulateSettings
from inverseflow.lightfield.synthetic import GAP_UM, SimulateError, finer_grid, make_scene, neuropil

PLANES = tuple(np.arange(-32.0, 33, 8))
GRIDS = [
    Grid(5.0, 3, PLANES, (15, 15)),
    Grid(5.0, 5, tuple(np.arange(-34.0, 35, 4)), (15, 15)),
    Grid(5.0, 1, (-30.0, -10.0, -4.0, 3.0, 22.0, 34.0), (9, 12), margin=3),
]


def optics(p=3, z=PLANES):
    """What a scene needs to know of optics."""

    def finer(voxels_per_lenslet, z_um):
        return optics(voxels_per_lenslet, z_um)

    return SimpleNamespace(mla_pitch_um=125, magnification=25, voxels_per_lenslet=p, z_um=z, finer=finer)


def ball(centre=(1.3, -2.1, 4.4), radius=6.0, nucleus=3.0):
    return Scene(np.array([centre]), np.array([radius]), np.array([nucleus]), np.array([2.0]))


@pytest.mark.parametrize("grid", GRIDS)
def test_the_light_of_a_neuron_does_not_depend_on_the_grid(grid):
    volume = ball().render(grid).astype(float)
    expected = 2.0 * 4 / 3 * np.pi * (6**3 - 3**3)
    assert volume.sum() == pytest.approx(expected, rel=1e-5)  # exact but for float32
    places = np.meshgrid(*[(grid.edges(a)[1:] + grid.edges(a)[:-1]) / 2 for a in range(3)], indexing="ij")
    centre = [(p * volume).sum() / volume.sum() for p in places]
    # a voxel of width w moves the light it holds by at most w/2
    np.testing.assert_allclose(centre[1:], [-2.1, 4.4], atol=0.1 * grid.voxel_um)
    assert abs(centre[0] - 1.3) < 0.1 * np.diff(grid.edges(0)).max()


def test_masks_are_shares_of_voxels_and_spare_the_nucleus():
    grid = Grid(5.0, 5, tuple(np.arange(-10.0, 11, 1)), (5, 5))
    mask = ball(centre=(0, 0, 0)).masks(grid)[0]
    z, y, x = np.meshgrid(*[(grid.edges(a)[1:] + grid.edges(a)[:-1]) / 2 for a in range(3)], indexing="ij")
    r = np.sqrt(z**2 + y**2 + x**2)
    # the lines of sight are corrected to the volume of the ball, which moves full voxels by less than 1 %
    np.testing.assert_allclose(mask[(r > 4) & (r < 5)], 1, atol=0.01)
    np.testing.assert_allclose(mask[(r < 2) | (r > 7)], 0, atol=0.01)


def test_masks_match_a_brute_force_count():
    grid = Grid(5.0, 3, (-8.0, 0.0, 8.0), (5, 5))
    scene = ball(nucleus=0.0)
    rng = np.random.default_rng(0)
    points = rng.uniform(-6, 6, (2_000_000, 3))
    points = points[np.linalg.norm(points, axis=1) < 6] + scene.centre_um[0]
    count = np.histogramdd(points, [grid.edges(a) for a in range(3)])[0]
    brute = count / len(points) * 4 / 3 * np.pi * 6**3 / grid.voxel_um3[:, None, None]
    # 4 sigma of the random count in a voxel, and 3 % for four lines of sight across the rim of a voxel
    np.testing.assert_allclose(scene.masks(grid)[0], brute, atol=0.03 + 4 * 0.004)


def test_a_bead_between_the_lines_of_sight_keeps_its_light():
    for grid in GRIDS[:2]:
        volume = beads([[0.3, 0.1, -0.2], [7.9, 20.0, 20.0]], radius_um=0.1, photons=500.0).render(grid)
        assert volume.sum() == pytest.approx(1000, rel=1e-5)
    z, y, x = np.unravel_index(volume.argmax(), volume.shape)
    assert abs(grid.z_um[z] - 7.9) <= 2 or abs(grid.z_um[z] - 0.3) <= 2


def test_what_lies_outside_is_cut_off():
    grid = GRIDS[0]
    edge = grid.edges(2)[-1]
    assert ball(centre=(0, 0, edge)).render(grid).sum() == pytest.approx(
        np.pi * 4 / 3 * (6**3 - 3**3),
        rel=0.02,  # half of it, drawn by lines of sight
    )
    assert ball(centre=(0, 0, edge + 100)).render(grid).sum() == 0
    assert ball(centre=(500, 0, 0)).render(grid).sum() == 0


def test_gains_scale_each_neuron_and_masks_add_up():
    settings = SimulateSettings(n_neuron=12, neurites="grown")
    scene = make_scene(settings, optics(), np.random.default_rng(0))
    grid, gains = GRIDS[0], np.random.default_rng(1).uniform(0.5, 3, 12)
    dark = scene.render(grid, gains=np.zeros(12))
    masks = scene.masks(grid)
    by_mask = np.tensordot(scene.brightness * gains, masks, 1) * grid.voxel_um3[:, None, None]
    np.testing.assert_allclose(scene.render(grid, gains) - dark, by_mask, atol=1e-4 * by_mask.max())


@pytest.mark.parametrize("seed", range(3))
def test_neurons_do_not_overlap_and_lie_where_they_should(seed):
    settings = SimulateSettings(density_per_mm3=90_000, margin=1)
    scene = make_scene(settings, optics(), np.random.default_rng(seed))
    assert len(scene) == round(90_000 * 85 * 85 * 72 / 1e9)
    apart = np.linalg.norm(scene.centre_um[:, None] - scene.centre_um, axis=2)
    apart -= scene.radius_um[:, None] + scene.radius_um
    assert apart[~np.eye(len(scene), dtype=bool)].min() > GAP_UM
    assert (np.abs(scene.centre_um[:, 0]) + scene.radius_um).max() <= 36
    assert np.abs(scene.centre_um[:, 1:]).max() <= 42.5 and scene.radius_um.min() >= 5
    drawn = scene.masks(Grid(5.0, 3, optics().z_um, (21, 21))).sum((1, 2, 3)) * 5 * 5 * 8 / 9
    expected = 4 / 3 * np.pi * (scene.radius_um**3 - scene.nucleus_um**3)
    np.testing.assert_allclose(drawn, expected, rtol=1e-4)


def test_the_same_seed_gives_the_same_scene():
    settings = SimulateSettings(neurites="grown")
    a, b, c = (make_scene(settings, optics(), np.random.default_rng(s)).render(GRIDS[0]) for s in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_neurons_that_do_not_fit_are_refused():
    with pytest.raises(SimulateError, match="of 400 neurons fit into 72 x 75 x 75 um"):
        make_scene(SimulateSettings(n_neuron=400), optics(), np.random.default_rng(0))
    with pytest.raises(SimulateError, match="do not fit between planes from -4 to 4"):
        make_scene(SimulateSettings(), optics(z=(-2.0, 2.0)), np.random.default_rng(0))


def test_the_finer_grid_is_finer_and_fills_the_same_slab():
    coarse = optics()
    fine = finer_grid(coarse)
    a, b = (Grid.of(o, (15, 15)) for o in (coarse, fine))
    assert fine.voxels_per_lenslet == 5 and b.voxel_um < a.voxel_um
    assert np.diff(fine.z_um) == pytest.approx(4) and np.diff(coarse.z_um) == pytest.approx(8)
    assert not set(fine.z_um) & set(coarse.z_um)
    for axis in range(3):
        np.testing.assert_allclose(a.edges(axis)[[0, -1]], b.edges(axis)[[0, -1]])


def test_neuropil_is_the_same_field_on_every_grid():
    field = neuropil(np.random.default_rng(0), 0.5, 0.2)
    sums = [(field.density(g) * g.voxel_um3[:, None, None]).sum() for g in GRIDS[:2]]
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)  # but for places that clip at zero
    fine = field.density(Grid(5.0, 3, tuple(np.arange(-200.0, 200, 8)), (80, 80)))
    assert fine.min() >= 0 and fine.mean() == pytest.approx(0.5, rel=0.1)
    assert fine.std() / fine.mean() == pytest.approx(0.2, rel=0.25)


def test_neuropil_leaves_room_for_nothing_but_itself():
    scene = make_scene(SimulateSettings(n_neuron=5), optics(), np.random.default_rng(0))
    with_it, without = scene.render(GRIDS[0]), scene.render(GRIDS[0], background=False)
    i = np.unravel_index(scene.masks(GRIDS[0]).sum(0).argmax(), with_it.shape)
    assert with_it[i] - without[i] < 0.05 * with_it[i] and (with_it >= without).all()


# ---------------------------------------------------------------- neurites


def test_pieces_hold_the_volume_of_their_cones():
    tree = Tree(
        np.array([[[0.0, 0, 0], [0, 3, 4]], [[0, 3, 4], [2, 3, 4]]]), np.array([[1.0, 0.5], [0.5, 0.5]])
    )
    pieces = tree.pieces(0.3)
    assert tree.length_um == pytest.approx(7)
    assert pieces[:, 3].sum() == pytest.approx(np.pi * (5 / 3 * (1 + 0.5 + 0.25) + 2 * 0.25))
    assert np.linalg.norm(np.diff(pieces[:17, :3], axis=0), axis=1).max() <= 0.3


def test_neurites_add_their_volume_and_reach_out():
    settings = {"n_neuron": 4, "neuropil": 0.0, "brightness_spread": 0.0}
    # somata in the middle of a large grid: nothing is cut off
    grid = Grid(5.0, 3, tuple(np.arange(-120.0, 121, 8)), (51, 51))
    bare, grown = (
        make_scene(SimulateSettings(neurites=n, **settings), optics(), np.random.default_rng(0))
        for n in ("none", "grown")
    )
    extra = sum(p[:, 3].sum() for p in grown.processes)
    assert grown.render(grid).sum() - bare.render(grid).sum() == pytest.approx(extra, rel=1e-4)
    assert 0.03 < extra / bare.render(grid).sum() < 1
    far = [np.linalg.norm(p[:, :3] - c, axis=1).max() for p, c in zip(grown.processes, grown.centre_um)]
    assert 25 < min(far) and max(far) < 60


def test_trees_grow_from_the_generator():
    a, b = (grow_tree(np.random.default_rng(0)) for _ in range(2))
    np.testing.assert_array_equal(a.ends_um, b.ends_um)


def test_swc_is_read_about_its_soma(tmp_path):
    path = tmp_path / "cell.swc"
    path.write_text("# a cell\n1 1 10 20 30 5 -1\n2 3 10 20 36 1 1\n3 3 14 20 36 0.5 2\n")
    tree = read_tree(path)
    np.testing.assert_allclose(tree.ends_um[1], [[6, 0, 0], [6, 0, 4]])  # z, y, x
    np.testing.assert_allclose(tree.radius_um, [[5, 1], [1, 0.5]])
    assert read_trees(tmp_path)[0].length_um == pytest.approx(10)


def test_morphologies_that_are_none_are_refused(tmp_path):
    with pytest.raises(MorphologyError, match="found none there"):
        read_tree(tmp_path / "nothing.swc")
    (tmp_path / "cell.swc").write_text("1 1 0 0\n")
    with pytest.raises(MorphologyError, match="lines of 7 numbers"):
        read_tree(tmp_path / "cell.swc")
    (tmp_path / "cell.h5").write_text("no HDF5")
    with pytest.raises(MorphologyError, match="expected HDF5"):
        read_tree(tmp_path / "cell.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MorphologyError, match="found none in that folder"):
        read_trees(tmp_path / "empty")


def test_measured_morphologies_are_read(data_dir):
    folder = data_dir / "lfm" / "morphology_swc"
    if not folder.is_dir():
        pytest.skip("lfm/morphology_swc is not in the folder of measured data")
    trees = read_trees(folder)
    assert len(trees) == 2
    for tree in trees:
        assert 1000 < tree.length_um < 50_000 and 0.05 < np.median(tree.radius_um) < 2
        assert np.linalg.norm(tree.ends_um, axis=2).min() < 15  # neurites begin at the soma
        step = np.linalg.norm(np.diff(tree.ends_um, axis=1), axis=2)
        assert np.median(step) < 10  # no jumps between sections
    settings = SimulateSettings(neurites=str(folder), n_neuron=3)
    assert len(make_scene(settings, optics(), np.random.default_rng(0)).processes) == 3
