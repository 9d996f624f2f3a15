from functools import partial

import pandas as pd
import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import open_store, replacing
from inverseflow.lightfield.calibration import Calibration
from inverseflow.lightfield.evaluate import evaluate
from inverseflow.lightfield.operator import LightField
from inverseflow.lightfield.psf import Psf, compute_psf
from inverseflow.lightfield.reconstruct import Task
from inverseflow.lightfield.settings import EvaluateSettings, InferSettings, PsfSettings

with job(snakemake) as run:
    settings = InferSettings(**run.params.infer)
    psf = Psf.load(run.input.psf)
    calibration = Calibration.load(run.input.calibration)
    network = None
    if run.input.network:
        from inverseflow.lightfield.networks import load_network

        network, _ = load_network(run.input.network, psf.optics)
    A = LightField.of(psf, calibration, settings.margin_lenslets)
    known = run.params.truth
    simulated = None
    if run.input.truth:
        simulated = open_store(run.input.truth).isel(time=slice(*run.params.frames))
    with xr.open_dataset(run.input.traces) as traces:
        table = evaluate(
            run.wildcards.sample,
            run.wildcards.method,
            Task(A, settings, network, calibration.trust, psf.optics),
            psf.optics,
            open_store(run.input.volume),
            pd.read_csv(run.input.neurons),
            traces.load(),
            EvaluateSettings(**run.params.settings),
            simulated=simulated,
            truth=known and (known["path"], known["voxel_um"]),
            fine_psf=partial(compute_psf, settings=PsfSettings(**run.params.psf)),
        )
    with replacing(run.output.metrics) as temporary:
        table.to_csv(temporary, index=False)
