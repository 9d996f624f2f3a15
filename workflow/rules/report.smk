# The summary page of all modalities.


rule summary:
    """Tables, pictures, settings and code of the run on one page."""
    input:
        metrics="results/maxrf/metrics.csv",
        elements=[
            f"results/maxrf/{MAXRF.samples[sample].library_of or sample}/elements.csv"
            for sample in SAMPLES
        ],
        anchors=collect(
            "results/maxrf/{sample}/{store}.json",
            sample=SAMPLES,
            store=["summary", "maps", "baselines"],
        ),
        pictures=collect(
            "results/maxrf/{sample}/{figure}.png", sample=SAMPLES, figure=FIGURES
        ),
    output:
        page=report(
            "results/summary.html",
            caption="../report/summary.rst",
            category="Summary",
            labels={"stage": "all", "result": "the whole run on one page"},
        ),
    log:
        "logs/summary.log",
    localrule: True
    conda:
        "../../envs/inverseflow.yaml"
    params:
        code=code("summary.py"),
        samples=SAMPLES,
        figures={name: text for name, (stage, text) in FIGURES.items()},
        settings=MAXRF.model_dump(mode="json", exclude={"samples"}),
        stages={
            name: code(f"maxrf/{name}.py")
            for name in (
                "summarize",
                "calibrate",
                "train",
                "detect",
                "deconvolve",
                "baselines",
                "evaluate",
            )
        },
    script:
        "../../scripts/summary.py"
