# make test: everything that must hold, ending with one line of counts.  The other targets are for daily use.
VENV ?= .venv
# The distribution's Python if it is new enough: edge boxes run the daemons on it, and it is optimised better than most others.
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
READY := $(VENV)/.yurt-installed
RUN := $(VENV)/bin/python

.PHONY: test unit lint demo bench system kubernetes clean

test: system $(READY) kubernetes
	@$(RUN) -m tests.run

unit: $(READY)
	@$(RUN) -m tests.run lint unit

lint: $(READY)
	@$(RUN) -m tests.run lint

demo: $(READY)
	@$(RUN) -m tests.demo

bench: $(READY)
	@scripts/system-packages bench
	@failed=0; for bench in hub tunnel firewall controllers; do $(RUN) -m bench.$$bench all || failed=1; done; exit $$failed

# What the tests need from the system; installed when root, named otherwise.
system:
	@PYTHON=$(PYTHON) scripts/system-packages || echo "system packages could not be installed; the tests say what they miss"

# The binaries of a real cluster, built once where they are missing.
kubernetes:
	@[ "$$(id -u)" -ne 0 ] || scripts/build-kubernetes || echo "Kubernetes could not be built; the tests that need it say so"

$(READY): setup.py
	@echo "installing yurt and what its tests use into $(VENV); that takes a minute"
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf build dist yurt.egg-info .mypy_cache .ruff_cache .hypothesis _trial_temp*
