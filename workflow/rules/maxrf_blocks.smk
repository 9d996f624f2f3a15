# Mode "blocks": a recording is deconvolved by one job per block of rows, on as many machines as there are.


rule maxrf_fingerprint:
    """The checksum of every block of rows, so that a change of one block is seen as that."""
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
        mem_mb=memory(1000),
        runtime=60,
    params:
        code=code("maxrf/fingerprint_blocks.py"),
        reader=scan_reader,
        state=MAXRF_RAW.state,
    script:
        "../../scripts/maxrf/fingerprint_blocks.py"


rule maxrf_deconvolve_block:
    """Maps of one block of rows."""
    input:
        scan=ancient(MAXRF_RAW.input),
        fingerprint="results/maxrf/{sample}/fingerprint/{scatteritem}.json",
        library=library_of("library.npz"),
        elements=library_of("elements.csv"),
    output:
        store=directory("results/maxrf/{sample}/blocks/{scatteritem}.zarr"),
        anchor="results/maxrf/{sample}/blocks/{scatteritem}.json",
    log:
        "logs/maxrf/deconvolve/{sample}_{scatteritem}.log",
    benchmark:
        "results/benchmarks/maxrf/deconvolve/{sample}_{scatteritem}.tsv"
    group:
        "blocks"
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=60,
    params:
        code=code("maxrf/deconvolve.py"),
        reader=scan_reader,
        settings=stage("maxrf", "deconvolve"),
    script:
        "../../scripts/maxrf/deconvolve.py"


rule maxrf_deconvolve:
    """The blocks of a recording joined."""
    input:
        stores=ancient(
            gather.rows("results/maxrf/{{sample}}/blocks/{scatteritem}.zarr")
        ),
        anchors=gather.rows("results/maxrf/{{sample}}/blocks/{scatteritem}.json"),
    output:
        store=directory("results/maxrf/{sample}/maps.zarr"),
        anchor="results/maxrf/{sample}/maps.json",
    log:
        "logs/maxrf/deconvolve/{sample}.log",
    conda:
        "../../envs/inverseflow.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=code("maxrf/join.py"),
        settings=stage("maxrf", "deconvolve"),
    script:
        "../../scripts/maxrf/join.py"
