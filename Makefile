# Two commands set up a fresh machine that has python3, make and git: `make demo` and `make test`.
PYTHON ?= python3
# Three for two cores: many tests wait, for a server or for processes of their own.
WORKERS ?= 3
BIN := .venv/bin
STAMP := .venv/.ready
PARITY := .venv-parity

# Else every process of the tests, and there are hundreds, would compile torch anew: 2 s each.
export PYTHONDONTWRITEBYTECODE :=

SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/python scripts/site_pages.py

.PHONY: setup browser demo test quick check docs parity bench constraints clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt constraints-data.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else f"rs_embed needs Python 3.11 to 3.13, found {sys.version.split()[0]}: make PYTHON=python3.12 setup")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r constraints-data.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

# A browser, in which tests open the pages of `explore`. Without one they are skipped; CI makes that a failure.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

demo: setup
	$(BIN)/rs-embed demo --out demo

# One thread each: for the small networks of the tests two are slower. A file stays in one process, with its servers.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test: setup
	$(PYTEST)

# While you write: what needs neither other processes nor seconds.
quick: setup
	$(PYTEST) -m "not slow and not alone" tests

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell *.md docs src notebooks tests scripts benchmarks examples packaging
	$(BIN)/python scripts/docs_tables.py --check
	$(SITE)

# A site that opens from the folder, without a server: site/index.html.
docs: setup
	$(SITE) site

# Against the authors' own code, in an environment of its own: TerraTorch brings some 150 packages.
parity: $(PARITY)/.ready
	OMP_NUM_THREADS=1 $(PARITY)/bin/python -m pytest tests/parity tests/terratorch_extra notebooks/terratorch

$(PARITY)/.ready: $(STAMP) constraints-parity.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(PARITY)
	$(BIN)/uv pip install --quiet --python $(PARITY)/bin/python -r constraints-parity.txt
	$(BIN)/uv pip install --quiet --python $(PARITY)/bin/python --no-deps --editable .
	@touch $@

bench: setup
	$(BIN)/python benchmarks/run.py

# Names, versions, markers and hashes only: no index, no host.
constraints: setup
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra plot --extra export --extra coords --extra stac --extra olmoearth --extra ray --extra search --extra ml --extra notebook --group dev pyproject.toml --output-file constraints.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra plot --extra export --extra coords --extra terratorch --group parity --constraints constraints.txt pyproject.toml --output-file constraints-parity.txt

clean:
	rm -rf .venv $(PARITY) demo site
