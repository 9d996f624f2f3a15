"""Mixtures of measured spectra: the truth is defined, peaks lie on their lines, splits are disjoint."""

import numpy as np
import pytest

from inverseflow.maxrf import semi_real as s
from inverseflow.maxrf.truth_detector import emission


def test_semi_real_is_a_mixture_of_measured_spectra_with_defined_truth(data_dir):
    data = s.semi_real(data_dir, s.SemiReal(8, 8, counts=1e4))
    assert data.sizes["channel"] == 2048 and data.counts.dtype == np.uint16
    assert data["shape"].sum("channel").values[: len(s.PRESENT)] == pytest.approx(1.0)
    above = data.counts.values[..., data.energy_kev.values > 0.9].sum(-1)
    assert above.mean() == pytest.approx(1e4, rel=0.02)  # 64 pixels: noise 0.1 %, pile-up 0.5 %
    n_present = (data.area.values > 0).sum(0)
    assert n_present.min() >= 1 and n_present.max() <= 7
    assert not set(s.ABSENT) & set(s.PRESENT) and len(s.ABSENT) == 15 and len(s.FAMILIES) == 30
    train = s.semi_real(data_dir, s.SemiReal(8, 8, counts=1e4, split="train"))
    names = s._BACKGROUNDS["Rh", "train"], s._BACKGROUNDS["Rh", "test"]
    assert not set(names[0]) & set(names[1])
    assert np.abs(np.corrcoef(train.drift.values.ravel(), data.drift.values.ravel())[0, 1]) < 0.4


def test_semi_real_peaks_lie_where_the_lines_are(data_dir):
    shapes, partners, detector = s.pure_shapes(data_dir / "xrf" / "nist_xrf_stainless")
    for group, shape in zip(s.PRESENT, shapes):
        energy, rate = emission(group[:2].strip("-"), 50.0)[group]
        assert detector.energy_kev[shape.argmax()] == pytest.approx(energy[np.argmax(rate)], abs=0.05), group
    assert 0.05 < partners["Zr-L"] < 0.3 and 0.01 < partners["Sn-K"] < 0.1


def test_semi_real_refuses_what_it_does_not_have(data_dir, tmp_path):
    with pytest.raises(ValueError, match="no backgrounds for anode 'W'"):
        s.semi_real(data_dir, s.SemiReal(anode="W"))
    with pytest.raises(FileNotFoundError, match="Acrylic"):
        s.semi_real(tmp_path)
