from inverseflow.core.job import job
from inverseflow.core.stores import write_json
from inverseflow.maxrf.learn import learn_threshold
from inverseflow.maxrf.settings import LearnSettings

with job(snakemake) as run:
    folder = run.params.data and run.params.data["folder"]
    run.log.info(
        "learning from %s", folder or "virtual paintings: INVERSEFLOW_DATA names no measured spectra"
    )
    settings = LearnSettings(**run.params.settings)
    write_json(run.output.thresholds, learn_threshold(folder, **settings.model_dump()))
