# make roadmap: install, then train the adopted rows of the road map on embedded images, briefly.
# make test: lint, types and tests, in the same .venv.
# make test-all: the same, and walks over all networks, marked `exhaustive`.
# make endurance: kills at random moments, full disks.
# make docs: the pages and the API reference into site/. A broken link, a missing docstring and a
# parameter that only the docstring has are errors.
# make test-slurm: preemption on a real SLURM of this one machine (root, Debian).
# make test-gpu: what only a GPU can tell, in tests and tables; DEVICE=cpu tries it without one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help roadmap test test-all lint unit exhaustive docs endurance test-slurm test-gpu clean
.DEFAULT_GOAL := help

help:
	@echo "make roadmap   install, train the whole road map on embedded real images, draw its figure"
	@echo "make test      install with the test extra; lint, type check, tests"
	@echo "make docs      the pages and the API reference, into site/"

roadmap: $(VENV)/installed
	$(BIN)/convnext-study roadmap --steps adopted --epochs 3 --out runs/quickstart $(ARGS)

test: lint unit

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --durations=10

exhaustive: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m exhaustive --durations=10

test-all: test exhaustive

endurance: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m endurance tests/endurance

docs: $(VENV)/installed-docs
	$(BIN)/ruff check --quiet convnext_study
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

test-slurm: $(VENV)/installed-test
	PYTHONPATH=tests $(BIN)/python -m slurm.preemption

test-gpu: $(VENV)/installed-test
	PYTHONPATH=tests $(BIN)/python -m gpu.run $(DEVICE)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch and torchvision are named first so that pip settles on a pair that fits.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
