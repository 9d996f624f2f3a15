"""Energy axis, peak shape, tube and scatter of a scan, from its mean spectrum and without an element list.

1. The electronic zero peak, where there is one, ties the axis to E = 0 and gives the noise.
2. The axis is searched (`axis`): on each trial axis the spectrum is written as a non-negative sum of element
   spectra, and the axis on which the fewest explain the most wins. A nominal axis only narrows the search.
3. The anode is the one whose Compton peaks, next to its coherent lines, explain what elements cannot
   (`scatter`).
4. Gain, zero, noise, Fano factor, tail, shelf and escape are fitted together with the areas of all lines and
   of the continuum (`response_fit`). Steps 3 and 4 are done twice, the second time to the end.
"""

import numpy as np

from .axis import find_axis
from .calibration import LOWEST_KEV, TUBE_KV, WAY_OUT, Calibration, CalibrationError
from .peaks import find_beam, find_zero_peak, fit_peak
from .response import FWHM
from .response_fit import PRIOR, Tube, fit_response
from .scatter import K_ANODES, find_scatter

MIN_COUNTS = 2000  # of a spectrum that can be calibrated


def calibrate(summary, settings=None):
    """Calibrate a scan from its summary.

    summary : Dataset of `summarize`: `mean` (channel); attrs n_spectra and, if known, zero_kev, gain_kev
        (nominal energy axis; both or none), anode, tube_kv.
    settings : `CalibrateSettings`.

    Returns a Calibration. Raises CalibrationError for a spectrum that is empty, not finite or too poor, and
    when the axis cannot be told.
    """
    y, n_spectra = _total(summary)
    nominal, anode = _nominal(summary.attrs), summary.attrs.get("anode") or None
    zero_peak = find_zero_peak(y, nominal)
    photons = y.copy()
    if zero_peak:
        photons[: zero_peak["last"] + 1] = 0
    n_counts = float(photons.sum())
    if n_counts < MIN_COUNTS:
        raise CalibrationError(
            f"calibrate: the whole scan holds {n_counts:.0f} counts, at least {MIN_COUNTS} are needed; "
            "use the calibration of another scan of this instrument (library_of)"
        )
    beam = None if anode else find_beam(photons)
    beam, (response, score, margin, warnings) = _find_axis(photons, beam, nominal, zero_peak)
    tube_kv, tube_from = _tube_kv(photons, response, summary.attrs.get("tube_kv"))
    threshold = max(zero_peak["last"] + 1 if zero_peak else 0, _lower_end(photons))

    for final in (False, True):
        first = max(threshold, int(np.ceil(response.channel(LOWEST_KEV - 0.1))))
        last = _upper_end(photons, response)
        if last - first < 50:
            raise CalibrationError(
                f"calibrate: only channels {first} to {last} hold counts on the axis "
                f"{response.zero_kev:.3f} + {response.gain_kev:.5f} keV * channel; {WAY_OUT}"
            )
        sources = (float(response.energy(beam)),) if beam else (anode,) if anode else K_ANODES
        found, scatter = find_scatter(photons, response, tube_kv, sources)
        if scatter and "beam_kev" in scatter:
            beam = float(response.channel(scatter["beam_kev"]))
            tube_kv, tube_from = scatter["beam_kev"], "spectrum"
        tube = Tube(found, scatter, tube_kv)
        fit = fit_response(photons, response, tube, first, last, zero_peak, final)
        response = fit["response"]

    pileup, sigma_pileup = (v / n_counts for v in fit["pileup"])
    response = response.replace(pileup_fraction=float(pileup))
    sigma = fit["sigma"] | {"pileup_fraction": float(sigma_pileup)}
    prior_only = tuple(k for k, (_, s, *_) in PRIOR.items() if sigma[k] > 0.9 * s)
    if tube_from == "assumed":
        warnings.append(
            f"tube voltage not in the file and no clear end of the spectrum: {tube_kv:g} kV assumed"
        )
    if not (anode or found or scatter):
        warnings.append("no scattered tube line recognised: anode unknown, no scatter templates")
    warnings += _doubts(response, prior_only, fit["model_error"])
    spectra = {"mean": y, "model": np.zeros(len(y)), "continuum": np.zeros(len(y))}
    for name in ("model", "continuum"):
        spectra[name][first : last + 1] = fit[name]
    return Calibration(
        response=response,
        sigma=sigma,
        prior_only=prior_only,
        anode=anode or found,
        tube_kv=float(tube_kv),
        tube_kv_from=tube_from,
        scatter=scatter,
        lines=tuple(_measure_lines(photons, fit, first)),
        quality={
            "first": int(first),
            "last": int(last),
            "chi2": fit["chi2"],
            "model_error": fit["model_error"],
            "n_counts": n_counts,
            "axis_score": float(score),
            "axis_margin": float(margin),
            "zero_peak": zero_peak,
        },
        spectra={name: counts / n_spectra for name, counts in spectra.items()},
        warnings=tuple(warnings),
    )


def _find_axis(photons, beam, nominal, zero_peak):
    """(beam, result of `find_axis`): the beam (channel) is None when its Compton peak is not there."""
    if beam:
        origin = zero_peak["channel"] if zero_peak else 0.0
        fluorescence = photons.copy()
        fluorescence[int(origin + 0.8 * (beam - origin)) :] = 0  # its scatter is no line of an element
        found = find_axis(fluorescence, nominal, zero_peak)
        response = found[0]
        if find_scatter(photons, response, TUBE_KV, (float(response.energy(beam)),))[1] is not None:
            return beam, found
    return None, find_axis(photons, nominal, zero_peak)


def _doubts(response, prior_only, model_error):
    """Warnings about the fitted numbers."""
    for name, (_, sigma, _, highest) in PRIOR.items():
        if getattr(response, name) > highest - 0.02 * sigma:
            yield f"{name} lies at {highest}, the end of what is allowed"
    if prior_only:
        yield "not told by this scan, taken from any detector: " + ", ".join(prior_only)
    if model_error > 0.1:
        yield f"the model misses the mean spectrum by {model_error:.0%}: look at the picture"


def _total(summary):
    """Counts of the whole scan per channel, number of spectra; CalibrationError for what cannot be used."""
    mean = np.asarray(summary["mean"].values, float)
    n = int(summary.attrs.get("n_spectra", 1))
    if mean.ndim != 1 or len(mean) < 128:
        raise CalibrationError(
            f"calibrate: expected a mean spectrum of 128 channels or more, got shape {mean.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(mean) | (mean < 0))
    if len(bad):
        raise CalibrationError(
            f"calibrate: the mean spectrum must be finite and >= 0, got {mean[bad[0]]} in channel {bad[0]} "
            f"({len(bad)} such channels); summarize the raw counts again"
        )
    if not mean.any():
        raise CalibrationError("calibrate: the mean spectrum is all zero; check the file and its data type")
    return np.round(mean * n), n


def _nominal(attrs):
    zero, gain = attrs.get("zero_kev"), attrs.get("gain_kev")
    if gain is None and zero is None:
        return None
    if gain is None or zero is None or not np.isfinite(zero) or not 0 < gain < 1:
        raise CalibrationError(
            "calibrate: the nominal axis needs a finite zero_kev and a gain_kev of 0 to 1 keV per channel, "
            f"got zero_kev {zero} and gain_kev {gain}; set both or none"
        )
    return float(zero), float(gain)


def _lower_end(y):
    """First channel above the electronic threshold: where a third of the low-energy level is reached."""
    n = max(len(y) // 200, 3)
    smooth = np.convolve(y, np.ones(n) / n, "same")
    seen = np.flatnonzero(smooth > 0)
    low = smooth[seen[0] : seen[0] + len(y) // 5]
    return int(seen[0] + np.argmax(low > 0.3 * np.median(low)) + n)


def _upper_end(y, response):
    """Last channel to fit: 20 counts or more within two FWHM below it, and no overflow channel."""
    cum = np.r_[0, np.cumsum(y)]
    n = np.arange(len(y))
    width = np.maximum(2 * FWHM * response.sigma_channel(n), 4).astype(int)
    inside = cum[n + 1] - cum[np.maximum(n - width, 0)]
    full = np.flatnonzero(inside >= 20)
    last = int(full[-1]) if len(full) else len(y) - 1
    return min(last, len(y) - 3)


def _tube_kv(y, response, given):
    """(kV, where from): given, or the energy where the counts end, or an assumption."""
    if given:
        return float(given), "file"
    energy = response.energy(np.arange(len(y)))
    edges = np.searchsorted(energy, np.arange(max(energy[0], 0), energy[-1], 0.5))
    counts = np.add.reduceat(y, edges[:-1]) if len(edges) > 2 else y
    floor = np.median(counts[-8:])
    seen = np.flatnonzero(counts > floor + 5 * np.sqrt(floor + 4))
    if len(seen) == 0 or floor > 0.003 * np.median(counts):
        return TUBE_KV, "assumed"
    end = float(energy[edges[seen[-1] + 1]])
    before = counts[max(seen[-1] - 6, 0) : max(seen[-1] - 2, 1)].mean()
    if end > energy[-1] - 4 or end < 8 or before < 300 + 10 * floor:  # not just too few counts
        return TUBE_KV, "assumed"
    return end, "spectrum"


def _measure_lines(y, fit, first, most=15):
    """The strongest bunches, each measured by itself: all else of the model is subtracted, then one Gaussian.

    A bunch counts when it makes up most of the model where it stands. Position and width are those of the
    model plus what the same Gaussian finds different in data and model, so that doublets are no bias.
    """
    response, rows = fit["response"], []
    n_model = len(fit["model"])
    for k, (label, bunch) in enumerate(fit["families"]):
        area = fit["area"][k]
        energy = sum(e * w for e, w in bunch)
        centre = float(response.channel(energy))
        width = float(response.sigma_channel(centre))
        a, b = int(centre - 2 * width) - first, int(centre + 2 * width) + 2 - first
        own = area * fit["columns"][:, k]
        if a < 0 or b > n_model or area < 30 or own[a:b].sum() < 0.6 * fit["model"][a:b].sum():
            continue
        whole = np.zeros((2, len(y)))
        whole[:, first : first + n_model] = fit["model"] - own, own
        peak = fit_peak(np.maximum(y - whole[0], 0), a + first, b + first, centre, width)
        same = fit_peak(whole[1], a + first, b + first, centre, width)
        if peak is None or same is None:
            continue
        fwhm = 1e3 * FWHM * float(response.sigma_kev(energy)) * peak["width"] / same["width"]
        rows.append(
            {
                "label": label,
                "energy_kev": float(energy),
                "channel": float(centre + peak["channel"] - same["channel"]),
                "sigma_channel": float(peak["sigma_channel"]),
                "fwhm_ev": float(fwhm),
                "sigma_fwhm_ev": float(fwhm * peak["sigma_width"] / peak["width"]),
                "counts": float(area),
            }
        )
    return sorted(rows, key=lambda r: -r["counts"])[:most]
