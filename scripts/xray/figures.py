from inverseflow.core.job import job
from inverseflow.core.stores import open_store
from inverseflow.xray.separation_figures import separation_figure
from inverseflow.xray.settings import FiguresSettings

with job(snakemake) as run:
    kind = "synthetic painting" if run.input.truth else run.params.origin
    separation_figure(
        open_store(run.input.images),
        {method: open_store(path) for method, path in zip(run.params.methods, run.input.layers)},
        run.output.separation,
        FiguresSettings(**run.params.settings),
        truth=open_store(run.input.truth) if run.input.truth else None,
        title=f"{run.wildcards.sample} ({kind})",
    )
