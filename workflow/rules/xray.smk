# X-ray separation, in the order in which the data flow. Per painting: simulate, fingerprint, calibrate, train; once:
# dictionary; per painting and method: infer, export, evaluate; then metrics. Pictures are in xray_figures.smk.


rule xray_simulate:
    """A virtual painting with known layers, for samples that have a `simulate` block."""
    output:
        painting=directory("results/xray/{sample}/painting.zarr"),
        anchor="results/xray/{sample}/painting.json",
    log:
        "logs/xray/simulate/{sample}.log",
    benchmark:
        "results/benchmarks/xray/simulate/{sample}.tsv"
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("xray/simulate.py"),
        settings=lambda wildcards: XRAY.samples[wildcards.sample].simulate.model_dump(
            mode="json"
        ),
    script:
        "../../scripts/xray/simulate.py"


rule xray_fingerprint:
    """A small file with the checksums of the images, wherever and whatever they are."""
    input:
        images=ancient(XRAY_RAW.input),
        anchor=XRAY_RAW.anchor,
    output:
        fingerprint="results/xray/{sample}/fingerprint.json",
    log:
        "logs/xray/fingerprint/{sample}.log",
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(500),
        runtime=30,
    params:
        code=code("xray/fingerprint.py"),
        origin=XRAY_RAW.origin,
        paths=XRAY_RAW.paths,
        state=XRAY_RAW.state,
    script:
        "../../scripts/xray/fingerprint.py"


rule xray_calibrate:
    """Colours registered to the radiograph, both on one scale; a bad fit is an error."""
    input:
        images=ancient(XRAY_RAW.input),
        fingerprint="results/xray/{sample}/fingerprint.json",
    output:
        store=directory("results/xray/{sample}/calibrated.zarr"),
        anchor="results/xray/{sample}/calibration.json",
    log:
        "logs/xray/calibrate/{sample}.log",
    benchmark:
        "results/benchmarks/xray/calibrate/{sample}.tsv"
    conda:
        "../../envs/xray.yaml"
    threads: 2
    resources:
        mem_mb=memory(3000),
        runtime=60,
    params:
        code=code("xray/calibrate.py"),
        images=radiograph,
        settings=stage("xray", "calibrate"),
    script:
        "../../scripts/xray/calibrate.py"


rule xray_dictionary:
    """The coupled dictionary: copied from the package, or learned from paintings with nothing concealed."""
    input:
        unpack(dictionary_inputs),
    output:
        dictionary="results/xray/dictionary/{dictionary}.safetensors",
        card="results/xray/dictionary/{dictionary}.json",
    log:
        "logs/xray/dictionary/{dictionary}.log",
    benchmark:
        "results/benchmarks/xray/dictionary/{dictionary}.tsv"
    wildcard_constraints:
        dictionary="pretrained|learned",
    conda:
        "../../envs/xray.yaml"
    threads: 2
    resources:
        mem_mb=memory(7000 if XRAY.dictionary.weights == "learn" else 1000),
        runtime=240,
    params:
        code=code("xray/dictionary.py"),
        settings=dictionary_settings,
    script:
        "../../scripts/xray/dictionary.py"


rule xray_train:
    """The unfolded network of a painting, trained on that painting without labels."""
    input:
        unpack(starts_from_colours),
        images=ancient("results/xray/{sample}/calibrated.zarr"),
        anchor="results/xray/{sample}/calibration.json",
    output:
        network="results/xray/{sample}/network.safetensors",
        card="results/xray/{sample}/network.json",
    log:
        "logs/xray/train/{sample}.log",
    benchmark:
        "results/benchmarks/xray/train/{sample}.tsv"
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(3000),
        runtime=720,
        gpu=CONFIG.gpu,
    params:
        code=code("xray/train.py"),
        settings=stage("xray", "train"),
    script:
        "../../scripts/xray/train.py"


rule xray_infer:
    """Both layers and the residual by one method, tile by tile."""
    input:
        images=ancient("results/xray/{sample}/calibrated.zarr"),
        images_anchor="results/xray/{sample}/calibration.json",
        dictionary=ancient(
            used_by("csc", f"dictionary/{DICTIONARY}.safetensors"),
        ),
        dictionary_card=used_by("csc", f"dictionary/{DICTIONARY}.json"),
        network=ancient(used_by("unfolded", "{sample}/network.safetensors")),
        network_card=used_by("unfolded", "{sample}/network.json"),
        truth=ancient(truth_of_oracle(simulated_painting)),
        truth_anchor=truth_of_oracle(XRAY_RAW.anchor),
    output:
        store=directory("results/xray/{sample}/{method}/layers.zarr"),
        anchor="results/xray/{sample}/{method}/layers.json",
    log:
        "logs/xray/infer/{sample}_{method}.log",
    benchmark:
        "results/benchmarks/xray/infer/{sample}_{method}.tsv"
    conda:
        "../../envs/xray.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=240,
        gpu=CONFIG.gpu,
    params:
        script=lambda wildcards: infer_script(wildcards.method),
        code=lambda wildcards: code(f"xray/{infer_script(wildcards.method)}.py"),
        settings=infer_settings,
    script:
        "../../scripts/xray/{params.script}.py"


rule xray_export:
    """The layers as 16-bit tiled BigTIFF, on the scale of the radiograph's file."""
    input:
        images=ancient("results/xray/{sample}/calibrated.zarr"),
        images_anchor="results/xray/{sample}/calibration.json",
        layers=ancient("results/xray/{sample}/{method}/layers.zarr"),
        anchor="results/xray/{sample}/{method}/layers.json",
    output:
        x1="results/xray/{sample}/{method}/x1.tif",
        x2="results/xray/{sample}/{method}/x2.tif",
        residual="results/xray/{sample}/{method}/residual.tif",
    log:
        "logs/xray/export/{sample}_{method}.log",
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("xray/export.py"),
    script:
        "../../scripts/xray/export.py"


rule xray_evaluate:
    """Figures of merit of one method on one painting, against the truth where it is known."""
    input:
        images=ancient("results/xray/{sample}/calibrated.zarr"),
        images_anchor="results/xray/{sample}/calibration.json",
        truth=ancient(simulated_painting),
        truth_anchor=XRAY_RAW.anchor,
        layers=ancient("results/xray/{sample}/{method}/layers.zarr"),
        anchor="results/xray/{sample}/{method}/layers.json",
    output:
        metrics="results/xray/{sample}/{method}/metrics.csv",
    log:
        "logs/xray/evaluate/{sample}_{method}.log",
    benchmark:
        "results/benchmarks/xray/evaluate/{sample}_{method}.tsv"
    conda:
        "../../envs/xray.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("xray/evaluate.py"),
        settings=stage("xray", "evaluate"),
    script:
        "../../scripts/xray/evaluate.py"


rule xray_metrics:
    """The figures of merit of all paintings and methods in one table."""
    input:
        xray_results("metrics.csv"),
    output:
        metrics=report(
            "results/xray/metrics.csv",
            caption="../report/xray_metrics.rst",
            category="X-ray separation",
            subcategory="all samples",
            labels={"stage": "4 evaluate", "result": "measures (CSV)"},
        ),
    log:
        "logs/xray/metrics.log",
    localrule: True
    conda:
        "../../envs/xray.yaml"
    params:
        code=code("xray/metrics.py"),
    script:
        "../../scripts/xray/metrics.py"
