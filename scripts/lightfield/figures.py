import pandas as pd
import xarray as xr

from inverseflow.core.job import job
from inverseflow.core.stores import open_store
from inverseflow.lightfield.trace_figures import trace_figure, true_traces
from inverseflow.lightfield.volume_figures import true_deviation, volume_figure
from inverseflow.lightfield.volume_store import over_frame

with job(snakemake) as run:
    title = f"{run.wildcards.sample} ({run.params.origin})"
    methods = run.params.methods
    stores = {method: over_frame(open_store(path)) for method, path in zip(methods, run.input.volumes)}
    rows = {"mean over time": {method: store["mean"] for method, store in stores.items()}}
    ground = "std" if all(store.sizes["time"] > 1 for store in stores.values()) else "mean"
    if ground == "std":
        rows["standard deviation over time"] = {method: store["std"] for method, store in stores.items()}
    known = open_store(run.input.movie) if run.input.movie else None
    if known:
        truths = {"truth": known["volume"]}, {"truth": true_deviation(known)}
        rows = {what: truth | row for (what, row), truth in zip(rows.items(), truths)}
    volume_figure(rows, run.output.volumes, title)
    for method, table, file, picture in zip(methods, run.input.neurons, run.input.traces, run.output.traces):
        neurons = pd.read_csv(table)
        with xr.open_dataset(file) as traces:
            trace_figure(
                stores[method][ground],
                neurons,
                traces["dff"],
                traces["events"],
                picture,
                f"{title}, {method}",
                neurons["trace_snr"],
                true_traces(known, neurons, traces["dff"]) if known else None,
            )
