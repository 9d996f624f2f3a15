import shutil

from inverseflow.core.job import job
from inverseflow.core.stores import replacing
from inverseflow.core.weights import card_path, shipped

with job(snakemake) as run:
    if run.params.settings["weights"] == "pretrained":
        weights = shipped("xray_dictionary")
        for source, target in ((weights, run.output.dictionary), (card_path(weights), run.output.card)):
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
    else:
        from inverseflow.xray.dictionary import learn
        from inverseflow.xray.settings import DictionarySettings

        settings = DictionarySettings(**run.params.settings)
        with run.compute() as engine:
            learn(
                run.input.get("paintings", []), settings, run.output.dictionary, engine, code=run.params.code
            )
