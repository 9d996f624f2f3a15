"""Tests of MA-XRF, a package because other modalities have test modules of the same names."""
