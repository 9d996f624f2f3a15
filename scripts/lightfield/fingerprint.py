from inverseflow.core.job import job
from inverseflow.core.rawdata import fingerprint
from inverseflow.core.stores import write_json
from inverseflow.lightfield.read import movie_files

with job(snakemake) as run:
    found = {role: fingerprint(movie_files(path)) for role, path in run.params.paths.items()}
    write_json(run.output.fingerprint, found)
