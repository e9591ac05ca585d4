# make test: everything that must hold, ending with one line of counts.  The other targets are for daily use.
VENV ?= .venv
PYTHON ?= python3
READY := $(VENV)/.yurt-installed
RUN := $(VENV)/bin/python

.PHONY: test unit lint demo bench system clean

test: system $(READY)
	@$(RUN) -m tests.run

unit: $(READY)
	@$(RUN) -m tests.run lint unit

lint: $(READY)
	@$(RUN) -m tests.run lint

demo: $(READY)
	@$(RUN) -m tests.demo

bench: $(READY)
	@scripts/system-packages bench
	@$(RUN) -m bench.hub all

# What the tests need from the system; installed when root, named otherwise.
system:
	@scripts/system-packages

$(READY): setup.py
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf build dist yurt.egg-info .mypy_cache .ruff_cache .hypothesis _trial_temp*
