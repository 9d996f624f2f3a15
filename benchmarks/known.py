"""MA-XRF on measured spectra of known composition: what is claimed, with no list of elements given.

Pure metals, steels, thin films and a bone, from four laboratories; one or more spectra each, taken through
summarize, calibrate, train and detect. "known" is what the certificate or the maker says and the detector can
see (argon: the air); what else is claimed may be a trace that nobody has certified, scatter of the
instrument, or wrong. SRM 1832 and the AXO film are excited by a monochromatic beam, which the library's tube
spectrum does not describe.

python -m benchmarks.known        needs INVERSEFLOW_DATA
"""

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pandas as pd  # noqa: E402

from benchmarks.core import write_results  # noqa: E402
from inverseflow.maxrf.calibrate import calibrate  # noqa: E402
from inverseflow.maxrf.detect import detect  # noqa: E402
from inverseflow.maxrf.read import open_scan  # noqa: E402
from inverseflow.maxrf.settings import (  # noqa: E402
    CalibrateSettings,
    DetectSettings,
    SummarizeSettings,
    TrainSettings,
)
from inverseflow.maxrf.summarize import summarize  # noqa: E402
from inverseflow.maxrf.train import train  # noqa: E402

NIST = "nist_xrf_stainless/{}_50kv_50_ma_Rh_vac_D1.msa"
SPECTRA = {  # case: file, elements known, options of the reader
    **{f"NIST {e}": (NIST.format(e), e, {}) for e in ("Cr", "Cu", "Fe", "Ni", "S", "Si", "Sn", "Ti", "Zr")},
    "NIST acrylic": (NIST.format("Acrylic"), "", {}),
    "NIST stainless steel": (NIST.format("Steel"), "Cr Mn Fe Ni", {}),
    "SRM 1155 steel": ("pymca/Steel.spe", "Si P S V Cr Mn Fe Co Ni Cu As Mo W Pb", {}),
    "SRM 1832 film": ("xraylarch/srm1832.mca", "Cl Ar Ca V Mn Co Cu", {}),
    "M6 Jetstream, bone or ivory": (
        "rosettasciio/bruker_m6_jetstream_file_example.spx",
        "P Ar Ca Sr",
        {},
    ),
    "painted panel, detector 10264": (
        "aurora/aurora_ruotato_det10264.npz",
        "S Ar Ca Ti Cr Fe Ni Cu Zn Hg Pb",
        {},
    ),
    "painted panel, detector 19511": (
        "aurora/aurora_ruotato_det19511.npz",
        "Ca Ti Cr Fe Ni Cu Zn Hg Pb",
        {},
    ),
}


def claims(path, options):
    """Elements table of a scan, detected without a list."""
    summary = summarize(open_scan(path, **options), SummarizeSettings())
    calibration = calibrate(summary, CalibrateSettings())
    library = train(calibration, summary, TrainSettings())
    return detect(summary, library, DetectSettings())[0]


def main():
    folder = os.environ.get("INVERSEFLOW_DATA")
    if not folder:
        sys.exit("INVERSEFLOW_DATA must name the folder with the measured spectra (xrf/)")
    rows = []
    for case, (name, known, options) in SPECTRA.items():
        table = claims(Path(folder, "xrf", name), options)
        table = table[table.decision.isin(["present", "ambiguous"])].drop_duplicates("element")
        known = known.split()
        found = [e for e in known if e in set(table.element)]
        rows.append((case, "found", "known elements", len(found), "elements", len(known)))
        rows.append((case, "missed", "known elements", len(known) - len(found), "elements", len(known)))
        for decision in ("present", "ambiguous"):
            some = table[table.decision == decision]
            for e, statistic in zip(some.element, some.statistic):
                kind = "known" if e in known else "not certified"
                rows.append((case, e, f"{decision}, {kind}: likelihood ratio", statistic, "1", 1))
        print(case, "found", found, "missed", [e for e in known if e not in found], flush=True)
        other = [f"{e} ({d})" for e, d in zip(table.element, table.decision) if e not in known]
        print("    not certified:", *other, flush=True)
    write_results("known", pd.DataFrame(rows, columns=["case", "method", "metric", "value", "unit", "n"]))


if __name__ == "__main__":
    main()
