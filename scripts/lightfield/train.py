from inverseflow.core.job import job
from inverseflow.lightfield.psf import Psf
from inverseflow.lightfield.settings import PsfSettings, TrainSettings
from inverseflow.lightfield.train import train

with job(snakemake) as run:
    psf = Psf.load(run.input.psf)
    train(
        run.wildcards.network,
        psf.optics,
        psf,
        TrainSettings(**run.params.settings),
        run.output.network,
        psf_settings=PsfSettings(**run.params.psf),
        code=run.params.code,
    )
