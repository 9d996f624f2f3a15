import zarr

from inverseflow.core.job import job
from inverseflow.core.stores import read_anchor, replacing
from inverseflow.restoration.evaluate import evaluate
from inverseflow.restoration.niqe import Niqe
from inverseflow.restoration.settings import EvaluateSettings

with job(snakemake) as run:
    truth = zarr.open_group(run.input.truth, mode="r")["truth"] if run.input.truth else None
    group = zarr.open_group(run.input.store, mode="r")
    images = read_anchor(run.input.anchor)["images"]
    residuals = {name: image["residual"] for name, image in images.items()}
    settings = EvaluateSettings(**run.params.settings)
    sampled = {}
    if all("n_eval" in image for image in images.values()):
        sampled["n_eval"] = {name: image["n_eval"] for name, image in images.items()}
        if len(group["deviation"]):
            sampled["spread"] = group["mean"], group["deviation"], next(iter(images.values()))["n_sample"]
    measures = {"niqe": Niqe(settings.niqe) if settings.niqe else None}
    if settings.lpips and truth is not None:
        from inverseflow.restoration.lpips import Lpips  # torch is loaded where it is asked for

        measures["lpips"] = Lpips(settings.lpips)
    table = evaluate(
        run.wildcards.sample,
        run.wildcards.method,
        dict(group["restored"].arrays()),
        residuals,
        settings,
        truth,
        **measures,
        **sampled,
    )
    with replacing(run.output.metrics) as temporary:
        table.to_csv(temporary, index=False)
