import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.lightfield.calibration import Calibration
from inverseflow.lightfield.detect_neurons import voxel_axes
from inverseflow.lightfield.extract import extract
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.psf import Psf
from inverseflow.lightfield.recording import open_recording
from inverseflow.lightfield.settings import TracesSettings
from inverseflow.lightfield.trace_files import write_masks, write_table, write_traces

with job(snakemake) as run:
    settings = TracesSettings(**run.params.settings)
    given = {role: known and known["path"] for role, known in run.params.neurons.items()}
    psf = Psf.load(run.input.psf)
    calibration = Calibration.load(run.input.calibration)
    volumes = xr.open_zarr(run.input.volume, consolidated=False)
    A = LightField.of(psf, calibration, run.params.margin)
    with run.compute() as engine:
        table, masks, traces = extract(
            open_recording(**run.params.reader),
            calibration,
            A,
            psf.optics,
            volumes,
            settings,
            engine,
            given["neurons"],
            given["two_photon"],
        )
    write_table(run.output.neurons, table)
    write_masks(run.output.masks, masks, voxel_axes(psf.optics, volumes["mean"].shape))
    write_traces(run.output.traces, run.output.table, traces)
    units = {name: values.attrs.get("units", "") for name, values in traces.data_vars.items()}
    write_anchor(run.output.anchor, run.output.traces, traces.sizes, units, settings)
