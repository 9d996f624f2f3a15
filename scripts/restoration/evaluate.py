import zarr

from inverseflow.core.job import job
from inverseflow.core.stores import read_anchor, replacing
from inverseflow.restoration.evaluate import evaluate
from inverseflow.restoration.niqe import Niqe
from inverseflow.restoration.settings import EvaluateSettings

with job(snakemake) as run:
    truth = zarr.open_group(run.input.truth, mode="r")["truth"] if run.input.truth else None
    restored = zarr.open_group(run.input.store, mode="r")["restored"]
    residuals = {name: image["residual"] for name, image in read_anchor(run.input.anchor)["images"].items()}
    settings = EvaluateSettings(**run.params.settings)
    measures = {"niqe": Niqe(settings.niqe) if settings.niqe else None}
    if settings.lpips and truth is not None:
        from inverseflow.restoration.lpips import Lpips  # torch is loaded where it is asked for

        measures["lpips"] = Lpips(settings.lpips)
    table = evaluate(
        run.wildcards.sample,
        run.wildcards.method,
        dict(restored.arrays()),
        residuals,
        settings,
        truth,
        **measures,
    )
    with replacing(run.output.metrics) as temporary:
        table.to_csv(temporary, index=False)
