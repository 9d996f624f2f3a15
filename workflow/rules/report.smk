# The summary page of all modalities.
SHOWN = [
    path
    for page in PAGES.values()
    for part in page["samples"].values()
    for paths in part.values()
    for path in paths.values()
] + [page["metrics"] for page in PAGES.values()]


rule summary:
    """Tables, pictures, settings and code of the run on one page."""
    input:
        list(dict.fromkeys(SHOWN)),
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
        pages=PAGES,
        settings={
            name: block.model_dump(mode="json", exclude={"samples"})
            for name, block in CONFIG.modalities.items()
        },
        stages={
            f"{name}: {stage}": code(f"{name}/{stage}.py")
            for name, page in PAGES.items()
            for stage in page["stages"]
        },
    script:
        "../../scripts/summary.py"
