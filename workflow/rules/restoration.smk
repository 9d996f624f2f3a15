# Restoration, in the order in which the data flow. Per sample: simulate, fingerprint, calibrate; once: squares,
# train; per sample and method: infer, export, evaluate; then metrics. Pictures are in restoration_figures.smk.


rule restoration_simulate:
    """Photographs degraded by the workflow, for samples that have a `simulate` block."""
    output:
        images=directory("results/restoration/{sample}/images.zarr"),
        anchor="results/restoration/{sample}/images.json",
    log:
        "logs/restoration/simulate/{sample}.log",
    benchmark:
        "results/benchmarks/restoration/simulate/{sample}.tsv"
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        script=lambda wildcards: (
            "simulate_chain" if is_chain(wildcards.sample) else "simulate"
        ),
        code=lambda wildcards: code(
            f"restoration/simulate{'_chain' if is_chain(wildcards.sample) else ''}.py"
        ),
        chain=chain_to_simulate,
        settings=lambda wildcards: RESTORED[wildcards.sample].simulate.model_dump(
            mode="json"
        ),
        task=task_of,
        factor=factor_of,
        state=degraded_from,
    script:
        "../../scripts/restoration/{params.script}.py"


rule restoration_fingerprint:
    """A small file with the checksums of the images, wherever and whatever they are."""
    input:
        images=ancient(IMAGES_RAW.input),
        anchor=IMAGES_RAW.anchor,
    output:
        fingerprint="results/restoration/{sample}/fingerprint.json",
    log:
        "logs/restoration/fingerprint/{sample}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(500),
        runtime=30,
    params:
        code=code("restoration/fingerprint.py"),
        origin=IMAGES_RAW.origin,
        paths=IMAGES_RAW.paths,
        state=IMAGES_RAW.state,
    script:
        "../../scripts/restoration/fingerprint.py"


rule restoration_calibrate:
    """How much noise the images have, and by what they were blurred."""
    input:
        images=ancient(IMAGES_RAW.input),
        fingerprint="results/restoration/{sample}/fingerprint.json",
    output:
        store=directory("results/restoration/{sample}/calibrated.zarr"),
        anchor="results/restoration/{sample}/calibration.json",
    log:
        "logs/restoration/calibrate/{sample}.log",
    benchmark:
        "results/benchmarks/restoration/calibrate/{sample}.tsv"
    conda:
        "../../envs/restoration.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        script=lambda wildcards: "gather" if is_chain(wildcards.sample) else "calibrate",
        code=lambda wildcards: code(
            f"restoration/{'gather' if is_chain(wildcards.sample) else 'calibrate'}.py"
        ),
        chain=chain_to_gather,
        path=lambda wildcards: IMAGES_RAW.path(wildcards.sample),
        sample=lambda wildcards: (
            None
            if is_chain(wildcards.sample)
            else RESTORED[wildcards.sample].model_dump(mode="json")
        ),
        nenet=resource("weights/nenet.safetensors"),
        settings=stage("restoration", "calibrate"),
    script:
        "../../scripts/restoration/{params.script}.py"


rule restoration_squares:
    """Squares of clean images, which denoisers learn from."""
    output:
        store=directory("results/restoration/squares.zarr"),
        anchor="results/restoration/squares.json",
    log:
        "logs/restoration/squares.log",
    benchmark:
        "results/benchmarks/restoration/squares.tsv"
    conda:
        "../../envs/restoration.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        code=code("restoration/squares.py"),
        state=lambda wildcards: training_images(),
        settings=stage("restoration", "data"),
    script:
        "../../scripts/restoration/squares.py"


rule restoration_train:
    """The denoiser: copied from the package, or trained on the squares."""
    input:
        squares=ancient(squares_of_network("squares.zarr")),
        anchor=squares_of_network("squares.json"),
    output:
        network="results/restoration/network/{network}.safetensors",
        card="results/restoration/network/{network}.json",
    log:
        "logs/restoration/train/{network}.log",
    benchmark:
        "results/benchmarks/restoration/train/{network}.tsv"
    wildcard_constraints:
        network="pretrained|trained",
    conda:
        "../../envs/restoration.yaml"
    threads: RESTORATION.train.parts
    resources:
        mem_mb=memory(3000),
        runtime=2880,
        gpu=CONFIG.gpu,
    params:
        script=lambda wildcards: f"train_{wildcards.network}",
        code=lambda wildcards: code(f"restoration/train_{wildcards.network}.py"),
        settings=network_settings,
    script:
        "../../scripts/restoration/{params.script}.py"


rule restoration_infer:
    """All images of a sample by one method."""
    input:
        images=ancient("results/restoration/{sample}/calibrated.zarr"),
        images_anchor="results/restoration/{sample}/calibration.json",
        network=ancient(network_of_method("safetensors")),
        card=network_of_method("json"),
        prior=ancient(prior_of_method("safetensors")),
        prior_card=prior_of_method("json"),
        inn=ancient(inn_of_method("safetensors")),
        inn_card=inn_of_method("json"),
    output:
        store=directory("results/restoration/{sample}/{method}/restored.zarr"),
        anchor="results/restoration/{sample}/{method}/restored.json",
    log:
        "logs/restoration/infer/{sample}_{method}.log",
    benchmark:
        "results/benchmarks/restoration/infer/{sample}_{method}.tsv"
    conda:
        "../../envs/restoration.yaml"
    threads: 2
    resources:
        mem_mb=memory(2500),
        runtime=240,
        gpu=CONFIG.gpu,
    params:
        script=lambda wildcards: restore_script(wildcards.sample, wildcards.method),
        code=lambda wildcards: code(
            f"restoration/{restore_script(wildcards.sample, wildcards.method)}.py"
        ),
        task=task_of,
        factor=factor_of,
        settings=restore_settings,
    script:
        "../../scripts/restoration/{params.script}.py"


rule restoration_export:
    """The restored images as 16-bit TIFF."""
    input:
        store=ancient("results/restoration/{sample}/{method}/restored.zarr"),
        anchor="results/restoration/{sample}/{method}/restored.json",
    output:
        folder=directory("results/restoration/{sample}/{method}/tiff"),
    log:
        "logs/restoration/export/{sample}_{method}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("restoration/export.py"),
    script:
        "../../scripts/restoration/export.py"


rule restoration_evaluate:
    """Figures of merit of one method, against the truth where it is known."""
    input:
        store=ancient("results/restoration/{sample}/{method}/restored.zarr"),
        anchor="results/restoration/{sample}/{method}/restored.json",
        truth=ancient(recorded_truth),
        truth_anchor=IMAGES_RAW.anchor,
    output:
        metrics="results/restoration/{sample}/{method}/metrics.csv",
    log:
        "logs/restoration/evaluate/{sample}_{method}.log",
    conda:
        "../../envs/restoration.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("restoration/evaluate.py"),
        state={name: state_of([file]) for name, file in MEASURING.items()},
        settings=stage("restoration", "evaluate"),
    script:
        "../../scripts/restoration/evaluate.py"


rule restoration_metrics:
    """The figures of merit of all samples and methods in one table."""
    input:
        tables=restorations("metrics.csv"),
        calibrations=[f"results/restoration/{s}/calibration.json" for s in RESTORED],
    output:
        metrics=report(
            "results/restoration/metrics.csv",
            caption="../report/restoration_metrics.rst",
            category="Restoration",
            subcategory="all samples",
            labels={"stage": "4 evaluate", "result": "measures (CSV)"},
        ),
    log:
        "logs/restoration/metrics.log",
    localrule: True
    conda:
        "../../envs/restoration.yaml"
    params:
        code=code("restoration/metrics.py"),
        samples={
            name: s.simulate and s.simulate.sigma_255 for name, s in RESTORED.items()
        },
    script:
        "../../scripts/restoration/metrics.py"
