from inverseflow.core.job import job
from inverseflow.lightfield.calibration import Calibration
from inverseflow.lightfield.detect_neurons import read_volume
from inverseflow.lightfield.psf import Psf
from inverseflow.lightfield.recording import open_recording
from inverseflow.lightfield.settings import PsfSettings, TrainSettings
from inverseflow.lightfield.train import train
from inverseflow.lightfield.training_set import recorded_frames

with job(snakemake) as run:
    psf = Psf.load(run.input.psf)
    settings, labels = TrainSettings(**run.params.settings), run.params.labels
    calibrations = run.input.get("calibrations", [])
    train(
        run.wildcards.network,
        psf.optics,
        psf,
        settings,
        run.output.network,
        frames=[
            recorded_frames(
                open_recording(**reader), Calibration.load(path), settings.n_unlabelled, settings.seed
            )
            for reader, path in zip(run.params.readers, calibrations)
        ],
        stack=labels and (read_volume(labels["path"]), labels["voxel_um"]),
        psf_settings=PsfSettings(**run.params.psf),
        code=run.params.code,
    )
