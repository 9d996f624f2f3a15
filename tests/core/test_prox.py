import numpy as np
from scipy.optimize import minimize

from inverseflow.core.prox import prox_tv


def objective(z, x, weight):
    gy = np.diff(z, axis=0, append=z[-1:])
    gx = np.diff(z, axis=1, append=z[:, -1:])
    return 0.5 * ((z - x) ** 2).sum() + weight * np.sqrt(gy**2 + gx**2).sum()


def test_prox_tv_is_not_above_a_brute_force_minimiser():
    x = np.random.default_rng(0).normal(0.3, 1, (4, 5))
    z, _ = prox_tv(x, 0.4, n_iter=2000)

    def smooth_objective(v):
        return objective(v.reshape(4, 5), x, 0.4)

    brute = minimize(smooth_objective, np.maximum(x, 0).ravel(), bounds=[(0, None)] * 20, method="Powell")
    brute = minimize(smooth_objective, brute.x, bounds=[(0, None)] * 20, method="Powell", tol=1e-10)
    assert z.min() >= 0
    assert objective(z, x, 0.4) <= brute.fun + 1e-6


def test_prox_tv_keeps_constants_and_a_stack_is_image_by_image():
    x = np.random.default_rng(1).normal(2, 1, (3, 6, 9))
    z, _ = prox_tv(x, 0.5, 100)
    np.testing.assert_allclose(z[1], prox_tv(x[1], 0.5, 100)[0], atol=1e-12)
    np.testing.assert_allclose(prox_tv(np.full((6, 9), 3.0), 5.0, 50)[0], 3.0)
    np.testing.assert_allclose(prox_tv(x, 1e4, 3000)[0].std((1, 2)), 0, atol=0.02)  # all flat
    np.testing.assert_array_equal(prox_tv(x - 5, 0)[0], np.maximum(x - 5, 0))
