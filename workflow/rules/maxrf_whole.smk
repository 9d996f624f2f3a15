# Mode "whole": a recording is one job; Dask works on its blocks inside.


rule maxrf_fingerprint:
    """A small file with the checksum of the raw data, wherever and whatever they are."""
    input:
        scan=ancient(MAXRF_RAW.input),
        anchor=MAXRF_RAW.anchor,
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
        reader=scan_reader,
        state=MAXRF_RAW.state,
    script:
        "../../scripts/maxrf/fingerprint.py"


rule maxrf_deconvolve:
    """One map per element, with errors, significance and chi-square."""
    input:
        scan=ancient(MAXRF_RAW.input),
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
        reader=scan_reader,
        settings=stage("maxrf", "deconvolve"),
    script:
        "../../scripts/maxrf/deconvolve.py"
