"""The physics behind the truth: lines where they are, losses below them, pile-up and drift keep the books."""

import numpy as np
import pytest

from inverseflow.maxrf import truth_detector as t


def test_line_energies_and_ratios_of_the_other_database():
    energy, rate = t.emission("Fe", 50.0)["Fe-K"]
    assert energy[np.argmax(rate)] == pytest.approx(6.404, abs=0.02)
    beta = rate[energy > 6.9].sum() / rate[energy < 6.9].sum()
    assert 0.11 < beta < 0.15  # Kb/Ka of iron is 0.12 to 0.135 in every compilation
    assert set(t.emission("Pb", 50.0)) == {"Pb-L", "Pb-M"}  # 88 keV would be needed for the K shell


def test_detector_keeps_energy_and_puts_the_losses_below_the_line():
    detector = t.Detector(2048, -0.96, 0.02, window=())
    y = detector.respond(detector.lines([8.048], [1.0]))[0]
    peak = np.abs(detector.energy_kev - 8.048) < 0.35
    mean = (y * detector.energy_kev)[peak].sum() / y[peak].sum()
    assert mean == pytest.approx(8.048, abs=0.004)  # the tail draws it down by 2 eV
    sigma = np.sqrt((y * (detector.energy_kev - mean) ** 2)[peak].sum() / y[peak].sum())
    assert 2354.8 * sigma == pytest.approx(np.sqrt(75**2 + 2.3548**2 * 3.85 * 0.118 * 8048), rel=0.06)
    escape = np.abs(detector.energy_kev - 6.308) < 0.15
    assert 0.001 < y[escape].sum() < 0.004  # 0.18 % by the closed formula
    assert y[detector.energy_kev > 8.5].sum() < 1e-6
    assert 0.95 < y.sum() <= 1.0  # 0.45 mm of silicon stop 99 % at 8 keV


def test_pile_up_adds_energies_and_costs_two_counts():
    detector = t.Detector(1024, 0.0, 0.02)
    y = np.zeros(1024)
    y[300] = 1e4
    piled = t.pile_up(y, 0.01, detector)
    assert piled[600] == pytest.approx(100) and piled[300] == pytest.approx(1e4 - 200)


def test_drift_moves_a_peak_and_keeps_the_counts():
    n = np.arange(512)
    peak = np.exp(-0.5 * ((n - 250) / 4) ** 2)
    moved = t.drifted(peak, 0.3)
    assert moved.sum() == pytest.approx(peak.sum(), rel=1e-9)
    assert (n * moved).sum() / moved.sum() == pytest.approx(250.3, abs=0.003)
    stretched = t.drifted(peak, 0.0, 0.001)
    assert (n * stretched).sum() / stretched.sum() == pytest.approx(250.25, abs=0.003)
