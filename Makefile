# make run    environment, default configuration, results/report.html
# make test   environment, format, lint and every test
# make bench  the side-by-side runs against peers, in environments of their own
# make bench-faces  diffusion samplers on faces for research, prior trained first: hours; needs INVERSEFLOW_DATA
PYTHON ?= python3.11
VENV   ?= .venv
CORES  ?= 2
FACES  ?= .faces
LOCK   := envs/requirements.lock
BIN    := $(VENV)/bin
SM     := $(BIN)/snakemake --cores $(CORES)
export PATH := $(abspath $(BIN)):$(PATH)
# One invocation per stage: an anchor that came out the same ends the rerun there.
STAGES := fingerprints summaries calibrations models detections reconstructions traces all
BENCHES := arena denoisers winnet fri maxrf known scale lightfield lightfield_movie lightfield_real lightfield_traces lightfield_nets calcium sparse_coding lista pnp registration paintings xray xray_large xray_real

run: $(VENV)/.done
	set -e; for stage in $(STAGES); do $(SM) $$stage; done
	@# every job writes its log: without a newer one the report is that of these results
	test -e results/report.html && test -z "$$(find logs -newer results/report.html -type f)" \
		|| $(SM) --report results/report.html

test: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(SM) --lint
	$(BIN)/python -m pytest -q -n $(CORES) --dist loadfile --no-loadscope-reorder

bench: $(VENV)/.done .peers/pymca/.done .peers/pyolaf/.done .peers/sporco/.done
	set -e; for name in $(BENCHES); do $(BIN)/python -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.core tables

bench-faces: $(VENV)/.done .peers/deepinv/.done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r envs/peers/features.txt
	$(BIN)/python -m benchmarks.train_prior faces32 --folder $(FACES)
	$(BIN)/python -m benchmarks.train_prior photographs32 --folder $(FACES)
	$(BIN)/python -m benchmarks.priors --faces $(FACES)/faces32.safetensors --photographs $(FACES)
	$(BIN)/python -m benchmarks.train_inn --folder $(FACES)/inn
	$(BIN)/python -m benchmarks.deepinv_speed --prior $(FACES)/faces32.safetensors
	$(BIN)/python -m benchmarks.diffusion --prior $(FACES)/faces32.safetensors --folder $(FACES) --tune
	$(BIN)/python -m benchmarks.diffusion --prior $(FACES)/faces32.safetensors --folder $(FACES)
	$(BIN)/python -m benchmarks.blind --prior $(FACES)/faces32.safetensors --folder $(FACES)
	$(BIN)/python -m benchmarks.core tables

env: $(VENV)/.done

$(VENV)/.done: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e '.[slurm,test]'
	touch $@

.peers/%/.done: envs/peers/%.txt
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

.PHONY: run test bench bench-faces env
.PRECIOUS: .peers/%/.done
