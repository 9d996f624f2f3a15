from inverseflow.core.images import image_files, open_image
from inverseflow.core.job import job
from inverseflow.core.rawdata import fingerprint
from inverseflow.core.stores import write_json

CHANNELS = {"path": 1, "rgb": 3, "rgb_back": 3}

with job(snakemake) as run:
    paths = run.params.paths
    if run.params.origin == "measured":  # a wrong image stops here, before anything is computed
        for role, channels in CHANNELS.items():
            if role in paths:
                open_image(paths[role], channels)
    found = {role: fingerprint(image_files(path)) for role, path in paths.items()}
    write_json(run.output.fingerprint, found)
