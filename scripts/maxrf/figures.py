import pandas as pd
import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.report import table_page
from inverseflow.maxrf.calibration import Calibration
from inverseflow.maxrf.lines import line_groups
from inverseflow.maxrf.map_figures import element_sheet, picture_pages, quick_look, residual_figure
from inverseflow.maxrf.settings import FiguresSettings
from inverseflow.maxrf.spectrum_figures import calibration_figure, fit_mean, fri_detections, mean_spectrum
from inverseflow.maxrf.templates import Library, present_groups

with job(snakemake) as run:
    settings = FiguresSettings(**run.params.settings)
    title = f"{run.wildcards.sample} ({run.params.origin})"
    summary = xr.load_dataset(run.input.summary)
    calibration = Calibration.load(run.input.calibration)
    library = Library.load(run.input.library)
    pulses = pd.read_csv(run.input.pulses)
    maps = xr.open_zarr(run.input.store, consolidated=False)
    mean, n_spectra = summary["mean"].values, summary.attrs["n_spectra"]
    energy = library.response.energy(range(mean.size))

    quick_look(summary, run.output.quicklook, energy, title)
    calibration_figure(calibration, n_spectra, run.output.calibration, title)
    symbols = {name.split("-")[0] for name, kind in zip(library.names, library.kinds) if kind == "element"}
    ends = library.response.energy([library.first, library.last])
    groups = line_groups(calibration.tube_kv or ends[1], *ends, sorted(symbols))
    spectra = {"mean": mean * n_spectra, "high_quantile": summary["high_quantile"].values}
    fri_detections(spectra, pulses, library, run.output.detect, groups, title)
    library = library.subset(present_groups(run.input.elements))
    areas = fit_mean(mean, library)
    mean_spectrum(mean, n_spectra, library, areas, run.output.spectrum, groups, title)
    element_sheet(maps, run.output.maps, mark=settings.mark, title=title)
    picture_pages(maps, run.output.pages, title=title)
    residual_figure(maps, run.output.residual, title)
    text = "Every element that was considered. Amounts are counts in the spectrum named under 'evidence'."
    table_page(run.input.elements, run.output.elements, f"Elements of {title}", text)
