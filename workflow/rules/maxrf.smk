# MA-XRF, in the order in which the data flow: simulate, fingerprint, summarize, calibrate, learn (when asked for),
# train, detect, deconvolve, baselines, export, figures, evaluate. Fingerprint and deconvolve depend on the mode:
# maxrf_whole.smk or maxrf_blocks.smk.


rule maxrf_simulate:
    """A scan with known truth, for samples that have a `simulate` block, perhaps of a painting of x-ray."""
    input:
        unpack(painting_to_scan),
    output:
        scan=directory("results/maxrf/{sample}/scan.zarr"),
        anchor="results/maxrf/{sample}/scan.json",
    log:
        "logs/maxrf/simulate/{sample}.log",
    benchmark:
        "results/benchmarks/maxrf/simulate/{sample}.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("maxrf/simulate.py"),
        settings=lambda wildcards: MAXRF.samples[wildcards.sample].simulate.model_dump(
            mode="json"
        ),
    script:
        "../../scripts/maxrf/simulate.py"


rule maxrf_summarize:
    """One pass: mean, maximum and quantile spectra, a random sample, clusters, total counts."""
    input:
        scan=ancient(MAXRF_RAW.input),
        fingerprints=FINGERPRINT,
    output:
        summary="results/maxrf/{sample}/summary.nc",
        anchor="results/maxrf/{sample}/summary.json",
    log:
        "logs/maxrf/summarize/{sample}.log",
    benchmark:
        "results/benchmarks/maxrf/summarize/{sample}.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    threads: 2
    resources:
        mem_mb=memory(1500),
        runtime=60,
    params:
        code=code("maxrf/summarize.py"),
        reader=scan_reader,
        settings=stage("maxrf", "summarize"),
    script:
        "../../scripts/maxrf/summarize.py"


rule maxrf_calibrate:
    """Energy axis, peak width, tails and pile-up, from the summary."""
    input:
        summary=ancient("results/maxrf/{sample}/summary.nc"),
        anchor="results/maxrf/{sample}/summary.json",
    output:
        calibration="results/maxrf/{sample}/calibration.json",
    log:
        "logs/maxrf/calibrate/{sample}.log",
    benchmark:
        "results/benchmarks/maxrf/calibrate/{sample}.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("maxrf/calibrate.py"),
        settings=stage("maxrf", "calibrate"),
    script:
        "../../scripts/maxrf/calibrate.py"


rule maxrf_learn:
    """Thresholds of detection from absent elements, for all samples; only for `train.thresholds: train`."""
    output:
        thresholds="results/maxrf/thresholds.json",
    log:
        "logs/maxrf/learn.log",
    benchmark:
        "results/benchmarks/maxrf/learn.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=120,
    params:
        code=code("maxrf/learn.py"),
        data=lambda wildcards: measured_spectra(),
        settings=stage("maxrf", "learn"),
    script:
        "../../scripts/maxrf/learn.py"


rule maxrf_train:
    """The library of templates, refined on the scan, and the thresholds of detection."""
    input:
        summary=ancient("results/maxrf/{sample}/summary.nc"),
        anchor="results/maxrf/{sample}/summary.json",
        calibration="results/maxrf/{sample}/calibration.json",
        learned=LEARNED,
    output:
        library="results/maxrf/{sample}/library.npz",
        card="results/maxrf/{sample}/library.json",
    log:
        "logs/maxrf/train/{sample}.log",
    benchmark:
        "results/benchmarks/maxrf/train/{sample}.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    threads: 2
    resources:
        mem_mb=memory(1500),
        runtime=60,
    params:
        code=code("maxrf/train.py"),
        thresholds=LEARNED or resource("maxrf/thresholds.json"),
        settings=stage("maxrf", "train"),
    script:
        "../../scripts/maxrf/train.py"


rule maxrf_detect:
    """Pulses in the summary spectra, and the elements that they prove."""
    input:
        summary=ancient("results/maxrf/{sample}/summary.nc"),
        anchor="results/maxrf/{sample}/summary.json",
        library=library_of("library.npz"),
    output:
        elements="results/maxrf/{sample}/elements.csv",
        pulses="results/maxrf/{sample}/pulses.csv",
    log:
        "logs/maxrf/detect/{sample}.log",
    benchmark:
        "results/benchmarks/maxrf/detect/{sample}.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=60,
    params:
        code=code("maxrf/detect.py"),
        settings=stage("maxrf", "detect"),
    script:
        "../../scripts/maxrf/detect.py"


rule maxrf_baselines:
    """The usual methods on the same scan."""
    input:
        scan=ancient(MAXRF_RAW.input),
        fingerprints=FINGERPRINT,
        library=library_of("library.npz"),
        elements=library_of("elements.csv"),
    output:
        store=directory("results/maxrf/{sample}/baselines.zarr"),
        anchor="results/maxrf/{sample}/baselines.json",
    log:
        "logs/maxrf/baselines/{sample}.log",
    benchmark:
        "results/benchmarks/maxrf/baselines/{sample}.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        code=code("maxrf/baselines.py"),
        reader=scan_reader,
        settings=stage("maxrf", "baselines"),
    script:
        "../../scripts/maxrf/baselines.py"


rule maxrf_export:
    """The maps in the formats of the field."""
    input:
        store=ancient("results/maxrf/{sample}/maps.zarr"),
        anchor="results/maxrf/{sample}/maps.json",
        summary=ancient("results/maxrf/{sample}/summary.nc"),
        summary_anchor="results/maxrf/{sample}/summary.json",
        calibration=library_of("calibration.json"),
        elements=library_of("elements.csv"),
    output:
        folder=directory("results/maxrf/{sample}/export"),
    log:
        "logs/maxrf/export/{sample}.log",
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("maxrf/export.py"),
        settings=stage("maxrf", "export"),
    script:
        "../../scripts/maxrf/export.py"


rule maxrf_figures:
    """Every picture of a recording."""
    input:
        summary=ancient("results/maxrf/{sample}/summary.nc"),
        summary_anchor="results/maxrf/{sample}/summary.json",
        calibration=library_of("calibration.json"),
        library=library_of("library.npz"),
        elements=library_of("elements.csv"),
        pulses=library_of("pulses.csv"),
        store=ancient("results/maxrf/{sample}/maps.zarr"),
        anchor="results/maxrf/{sample}/maps.json",
    output:
        **{
            figure: report(
                f"results/maxrf/{{sample}}/{figure}.png",
                caption=f"../report/maxrf_{figure}.rst",
                category="MA-XRF",
                subcategory="{sample}",
                labels={"stage": stage, "result": text},
            )
            for figure, (stage, text) in MAXRF_FIGURES.items()
        },
        elements=report(
            "results/maxrf/{sample}/elements.html",
            caption="../report/maxrf_elements.rst",
            category="MA-XRF",
            subcategory="{sample}",
            labels={"stage": "3 detect", "result": "table of elements"},
        ),
        pages="results/maxrf/{sample}/maps.pdf",
    log:
        "logs/maxrf/figures/{sample}.log",
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("maxrf/figures.py"),
        origin=MAXRF_RAW.origin,
        settings=stage("maxrf", "figures"),
    script:
        "../../scripts/maxrf/figures.py"


rule maxrf_evaluate:
    """Measures of one recording, against the truth where it is known."""
    input:
        scan=ancient(MAXRF_RAW.input),
        fingerprints=FINGERPRINT,
        library=library_of("library.npz"),
        elements=library_of("elements.csv"),
        store=ancient("results/maxrf/{sample}/maps.zarr"),
        anchor="results/maxrf/{sample}/maps.json",
        baselines=ancient("results/maxrf/{sample}/baselines.zarr"),
        baselines_anchor="results/maxrf/{sample}/baselines.json",
    output:
        metrics="results/maxrf/{sample}/metrics.csv",
    log:
        "logs/maxrf/evaluate/{sample}.log",
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=30,
    params:
        code=code("maxrf/evaluate.py"),
        reader=scan_reader,
        simulated=lambda wildcards: MAXRF_RAW.simulated(wildcards.sample),
        settings=stage("maxrf", "evaluate"),
    script:
        "../../scripts/maxrf/evaluate.py"


rule maxrf_metrics:
    """The measures of all recordings in one table."""
    input:
        collect("results/maxrf/{sample}/metrics.csv", sample=MAXRF_SAMPLES),
    output:
        metrics=report(
            "results/maxrf/metrics.csv",
            caption="../report/maxrf_metrics.rst",
            category="MA-XRF",
            subcategory="all samples",
            labels={"stage": "5 evaluate", "result": "measures (CSV)"},
        ),
    log:
        "logs/maxrf/metrics.log",
    localrule: True
    conda:
        "../../envs/inverseflow.yaml"
    params:
        code=code("maxrf/metrics.py"),
    script:
        "../../scripts/maxrf/metrics.py"
