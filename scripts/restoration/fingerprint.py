from inverseflow.core.images import open_image
from inverseflow.core.job import job
from inverseflow.core.rawdata import fingerprint
from inverseflow.core.stores import write_json
from inverseflow.restoration.images import files_of

with job(snakemake) as run:
    paths = run.params.paths
    if run.params.origin == "measured":  # a wrong image stops here, before anything is computed
        for file in files_of(paths["path"]):
            open_image(file)
    write_json(run.output.fingerprint, {role: fingerprint(files_of(path)) for role, path in paths.items()})
