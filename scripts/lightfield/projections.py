from inverseflow.core.job import job
from inverseflow.lightfield.projections import export_ome_tiff, projection_figure, projection_movie

with job(snakemake) as run:
    title = f"{run.wildcards.sample} ({run.params.origin}), {run.wildcards.method}"
    projection_figure(run.input.volume, run.output.picture, title)
    projection_movie(run.input.volume, run.output.movie)
    if "tiff" in run.output.keys():
        export_ome_tiff(run.input.volume, run.output.tiff)
