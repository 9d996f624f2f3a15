# Mode "whole": a recording is one job; Dask works on its blocks inside.


rule maxrf_fingerprint:
    """A small file with the checksum of the raw data, wherever and whatever they are."""
    input:
        scan=ancient(raw),
        anchor=raw_anchor,
    output:
        FINGERPRINT,
    log:
        "logs/maxrf/fingerprint/{sample}.log",
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(500),
        runtime=60,
    params:
        code=code("maxrf/fingerprint.py"),
        reader=reader,
        state=raw_state,
    script:
        "../../scripts/maxrf/fingerprint.py"


rule maxrf_deconvolve:
    """One map per element, with errors, significance and chi-square."""
    input:
        scan=ancient(raw),
        fingerprints=FINGERPRINT,
        library=library_of("library.npz"),
        elements=library_of("elements.csv"),
    output:
        store=directory("results/maxrf/{sample}/maps.zarr"),
        anchor="results/maxrf/{sample}/maps.json",
    log:
        "logs/maxrf/deconvolve/{sample}.log",
    benchmark:
        "results/benchmarks/maxrf/deconvolve/{sample}.tsv"
    conda:
        "../../envs/inverseflow.yaml"
    threads: 2
    resources:
        mem_mb=memory(1500),
        runtime=120,
    params:
        code=code("maxrf/deconvolve.py"),
        reader=reader,
        settings=stage("deconvolve"),
    script:
        "../../scripts/maxrf/deconvolve.py"
