from inverseflow.core.job import job
from inverseflow.xray.infer import infer
from inverseflow.xray.methods import BASELINES
from inverseflow.xray.settings import GuidedSettings, LevinWeissSettings

BLOCKS = {"levin_weiss": LevinWeissSettings, "guided": GuidedSettings}

with job(snakemake) as run:
    name, settings = run.wildcards.method, run.params.settings
    block = [BLOCKS[name](**settings[name])] if name in BLOCKS else []
    method = BASELINES[name](*block, **({"truth": run.input.truth} if run.input.truth else {}))
    with run.compute() as engine:
        infer(
            run.input.images, method, settings["tile"], run.output.store, engine, run.key, run.output.anchor
        )
