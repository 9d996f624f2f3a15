from inverseflow.core.job import job
from inverseflow.core.stores import write_anchor
from inverseflow.lightfield.optics import Optics
from inverseflow.lightfield.psf import compute_psf
from inverseflow.lightfield.settings import MicroscopeSettings, PsfSettings

with job(snakemake) as run:
    settings = PsfSettings(**run.params.settings)
    optics = Optics.of(MicroscopeSettings(**run.params.microscope))
    for note in optics.notes:
        run.log.warning("%s", note)
    psf = compute_psf(optics, settings)
    psf.save(run.output.psf)
    dims = dict(zip(("z", "phase", "v", "u"), psf.h.shape))
    write_anchor(run.output.anchor, run.output.psf, dims, "share of the light", settings)
