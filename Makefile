# make quickstart: everything from a fresh machine to a translation; make test: the tests; make demo: the page;
# make benchmark: speed beside peers and the machine's limit ($NMT_DATA has multi30k), make benchmark-quick: the limit
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: starter quickstart demo test check benchmark benchmark-quick clean

# the package and what it needs, in an environment of its own; again only when these two files change
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'nmt needs Python 3.11 or newer: make PYTHON=python3.12')"
	@echo "installing into $(VENV): some minutes, in which nothing is said"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# the starter translator, trained if it is not there
starter: $(VENV)/installed
	$(BIN)/nmt train starter-en-de --out runs/starter-en-de $(if $(wildcard runs/starter-en-de),--resume)

quickstart: starter
	$(BIN)/nmt evaluate runs/starter-en-de
	echo "The small child does not see the old dog." | $(BIN)/nmt translate runs/starter-en-de
	@echo
	@echo "Next:  echo 'Tomorrow the young queen will read a good book.' | $(BIN)/nmt translate runs/starter-en-de"
	@echo "       make demo"

demo: starter
	$(BIN)/nmt demo runs/starter-en-de

test: $(VENV)/installed
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report=term

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

benchmark-quick: $(VENV)/installed
	$(BIN)/python benchmarks/limit.py

benchmark: benchmark-quick
	$(BIN)/python benchmarks/yardstick.py
	$(BIN)/python benchmarks/yardstick.py --feeding
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/growth.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
