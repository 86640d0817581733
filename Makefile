# `make help` lists what there is to run.
#
# Environments. The package is installed into them as a user would install it, not in editable mode: what
# runs is what was built, two builds never share a file, and no file of the build lies among the sources.
# Each is refreshed by itself when a source is newer, which takes a few seconds.
#   .venv        the release build, for the demo, benchmarks and linters, and everything from PyPI
#   .venv-debug  the debug build: asserts and a check of the whole pool after every operation (tests)
#   .venv-asan   the same under AddressSanitizer and UndefinedBehaviorSanitizer
# The last two hold the package only, and see the rest in .venv through a .pth file.
#   .venv-sdk2   the debug build beside the MCP SDK 2.x, complete in itself (tests/integration)
#   .venv-recipes  the release build beside the libraries of examples/recipes, complete in itself (tests/recipes)
#   .venv-docs     the release build beside Sphinx (make docs)
#   .venv-gateway  the release build inside the real gateway, complete in itself (demo, tests/gateway)
#   .venv-gateway-1.1.0, -1.0.7  the same in gateways with the session registry (tests/gateway_registry)
#
# Variables: PYTHON=python3.12 (default: what .venv has, else the first usable one), VENV=.venv,
#            PYTEST_ARGS='-k waiter', KEEP=1 and GATEWAY=1.1.0 (demo), SECONDS=60 and SDK=2 (soak),
#            TARGET=pool and SECONDS=60 (fuzz), SECONDS=600, N=50 and SEED=7 (mutants), LAB='--only load' (lab),
#            DOCS=1 (bench)

SHELL := /bin/bash
.DELETE_ON_ERROR:
.NOTPARALLEL:  # the builds share the folder of metadata that setuptools writes

PYTHON ?=
VENV ?= .venv
PYTEST_ARGS ?=
GATEWAY ?=

REGISTRY_GATEWAYS := $(shell scripts/gateways list registry)
REGISTRY_VENVS := $(REGISTRY_GATEWAYS:%=$(VENV)-gateway-%)
# Complete in themselves, and of the same Python as .venv.
COMPLETE_VENVS := $(VENV)-sdk2 $(VENV)-gateway $(VENV)-recipes $(VENV)-docs

BIN := $(abspath $(VENV))/bin
# uv from PyPI where there is none; where it cannot be had, scripts/install takes pip.
export MAIN_VENV := $(abspath $(VENV))
INSTALL := scripts/install
# Folders are among them so that a removed file counts as a change.
BUILD_INPUTS := $(shell find csrc mcpgateway_pool -name __pycache__ -prune -o -print) \
	_mcpgateway_pool_switch.py mcpgateway_pool.pth setup.py pyproject.toml README.md LICENSE
C_SOURCES := $(shell find csrc -name '*.c')
C_FILES := $(shell find csrc tests/c tests/fuzz tests/security benchmarks -name '*.[ch]')

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- environments

.PHONY: venv
venv: $(VENV)/.installed ## make .venv with the release build

# Made anew when another interpreter is asked for; its time stamp changes only then.
$(VENV)/.python: FORCE
	@if [ -z "$(PYTHON)" ] && [ -f $@ ] && $(BIN)/python -c '' 2>/dev/null; then exit 0; fi; \
	python=$$(scripts/find-python $(PYTHON)) || exit 1; \
	if [ "$$python" = "$$(cat $@ 2>/dev/null)" ] && $(BIN)/python -c '' 2>/dev/null; then exit 0; fi; \
	echo "making $(VENV) with $$python"; \
	rm -rf $(VENV) $(VENV)-debug $(VENV)-asan $(COMPLETE_VENVS) $(REGISTRY_VENVS) && $$python -m venv $(VENV) \
		&& $(BIN)/python -m pip --disable-pip-version-check -qq install --upgrade 'pip>=25.1' \
		&& { command -v uv >/dev/null || $(INSTALL) $(VENV) uv || true; } && echo "$$python" >$@  # 25.1: dependency groups

$(VENV)-debug/.python $(VENV)-asan/.python: %/.python: $(VENV)/.python
	@rm -rf $* && $(BIN)/python -m venv --without-pip $*
	@# After its own site-packages, so that its own build of the package comes first.
	@site() { "$$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
	site $(BIN)/python >"$$(site $*/bin/python)/packages-of-release-venv.pth"
	@touch $@

$(COMPLETE_VENVS:=/.python): %/.python: $(VENV)/.python
	@rm -rf $* && $(BIN)/python -m venv $*
	@touch $@

$(REGISTRY_VENVS:=/.python): $(VENV)-gateway-%/.python: $(VENV)/.python
	@python=$$(scripts/find-python $$(scripts/gateways pythons $*)) && rm -rf $(@D) && $$python -m venv $(@D)
	@touch $@

$(VENV)-%/.packages: pyproject.toml $(VENV)-%/.python
	@echo "installing packages into $(VENV)-$*"
	@$(INSTALL) $(VENV)-$* --group $*
	@touch $@

$(VENV)/.group-%: pyproject.toml $(VENV)/.python
	@echo "installing packages into $(VENV): $*"
	@$(INSTALL) $(VENV) --group $*
	@touch $@

FLAVOUR := release
$(VENV)-debug/.installed $(VENV)-sdk2/.installed: FLAVOUR := debug
$(VENV)-debug/.installed $(VENV)-sdk2/.installed: export MGP_DEBUG := 1
$(VENV)-asan/.installed: FLAVOUR := address-undefined
$(VENV)-asan/.installed: export MGP_SANITIZE := address,undefined
$(COMPLETE_VENVS:=/.installed) $(REGISTRY_VENVS:=/.installed): %/.installed: %/.packages
$(VENV)/.installed $(VENV)-debug/.installed $(VENV)-asan/.installed $(COMPLETE_VENVS:=/.installed) $(REGISTRY_VENVS:=/.installed): %/.installed: %/.python $(VENV)/.group-base $(BUILD_INPUTS)
	@wheel=build/wheels/$(FLAVOUR)-$$($*/bin/python -c 'import sys; print(sys.implementation.cache_tag)') && \
	$(MAKE) -s --no-print-directory $$wheel/.built BUILDER=$*/bin/python FLAVOUR=$(FLAVOUR) && \
	$(INSTALL) $* --no-deps --force-reinstall $$wheel/*.whl
	@touch $@

# One wheel for each flavour and each Python goes into every environment that wants it. Built by setuptools itself,
# which BUILDER has: nothing is installed for it.
build/wheels/%/.built: $(BUILD_INPUTS)
	@# setuptools packs whatever lies in its build folder, files removed from the sources included.
	@rm -rf $(@D); if [ -d build/$(FLAVOUR) ]; then find build/$(FLAVOUR) -type f ! -name '*.o' ! -name '*.so' -delete; fi
	@echo "building for $*"
	@mkdir -p $(@D) && $(BUILDER) -c 'import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])' $(@D) >$(@D)/log 2>&1 \
		|| { cat $(@D)/log >&2; exit 1; }
	@touch $@

.PHONY: FORCE
FORCE:

# ---------------------------------------------------------------- running

.PHONY: demo demo-lite
# GATEWAY=1.1.0, 1.0.7 or 1.0.0rc1; default the newest that a Python of this machine can run.
NEWEST_GATEWAY = $$(scripts/gateways newest registry)
demo: ## a gateway in its default configuration, without this package and with it (GATEWAY=1.0.0rc1, 1.0.7, 1.1.0; KEEP=1 goes on serving)
	@echo "The first time, this installs the gateway and what it needs into an environment of its own (some 100 packages,"
	@echo "270 MB) and builds this package: a few minutes. The demo itself takes about one."
	@$(MAKE) demo-in-$(or $(GATEWAY),$(NEWEST_GATEWAY))

demo-in-1.0.0rc1: $(VENV)-gateway/.installed
	$(VENV)-gateway/bin/python -P examples/gateway_demo.py $(if $(KEEP),--keep)

demo-in-%: $(VENV)-gateway-%/.installed
	$(VENV)-gateway-$*/bin/python -P examples/registry_demo.py $(if $(KEEP),--keep)

demo-lite: $(VENV)/.installed ## the pool without the gateway: real servers, real calls, the series as scraped (KEEP=1)
	$(BIN)/python -P examples/demo.py $(if $(KEEP),--keep)

# ---------------------------------------------------------------- measuring

.PHONY: bench bench-quick bench-instructions bench-gateway bench-gateway-pool bench-plots
bench: $(VENV)/.installed ## every performance target, compared with the gateway's own pool (DOCS=1: keeps the figures, README and docs/performance.md show them)
	$(BIN)/python benchmarks/run.py $(if $(DOCS),--docs)

bench-quick: $(VENV)/.installed ## the same with less of everything, to try a change
	$(BIN)/python benchmarks/run.py --quick

bench-instructions: $(VENV)/.installed ## instructions of acquire and release, by valgrind (DOCS=1)
	$(BIN)/python benchmarks/instructions.py $(if $(DOCS),--docs)

bench-gateway: ## tool calls through the newest gateway, without this package and with it (DOCS=1)
	@$(MAKE) bench-gateway-$(NEWEST_GATEWAY)

bench-gateway-1.%: $(VENV)-gateway-1.%/.installed $(if $(DOCS),$(VENV)/.installed $(VENV)/.group-plots)
	$(VENV)-gateway-1.$*/bin/python -P benchmarks/gateway_calls.py $(if $(DOCS),--docs)
	$(if $(DOCS),$(BIN)/python benchmarks/plots.py --draw --only gateway-calls)

bench-gateway-pool: $(VENV)-gateway/.installed ## tool calls through 1.0.0rc1: its pool, this one, none (DOCS=1)
	$(VENV)-gateway/bin/python -P benchmarks/gateway.py $(if $(DOCS),--docs)

bench-plots: $(VENV)/.installed $(VENV)/.group-plots ## growth curves into docs/images
	$(BIN)/python benchmarks/plots.py

.PHONY: simulate simulate-affinity faults plots screens dashboard
simulate: $(VENV)/.group-plots ## the pool machine alone, in C, with 1,000 to 10,000,000 keys (SIMULATE=--short)
	$(BIN)/python -P benchmarks/simulation.py $(if $(SIMULATE),$(SIMULATE),--plot docs/images)

simulate-affinity: $(VENV)/.installed $(VENV)/.group-test ## what session affinity asks of Redis, call by call
	$(BIN)/python -P benchmarks/simulation/affinity.py

faults: $(VENV)/.installed $(VENV)-sdk2/.installed ## what callers meet when servers break, compared with the gateway's own pool
	$(BIN)/python -P benchmarks/faults.py --sdk2-python $(VENV)-sdk2/bin/python

plots: $(VENV)/.installed $(VENV)/.group-plots ## draw the dashboard from the demo into docs/images (needs prometheus)
	$(BIN)/python -P scripts/plot_dashboard.py

screens: $(VENV)/.installed ## draw the screens of docs/cli.md anew
	$(BIN)/python -P scripts/make_screens.py

dashboard: ## write the Grafana dashboard anew
	$(BIN)/python -P scripts/make_dashboard.py

# ---------------------------------------------------------------- tests

# LENGTH=short leaves out the tests that are marked as long, LENGTH=long runs only these, LENGTH=all both; what may
# be long stands in docs/testing.md. WORKERS: processes of pytest at a time; with 0 it runs all by itself. One more
# than there are processors: for a third of their time, tests wait for servers.
LENGTH ?= all
WORKERS ?= $(shell expr $$(nproc) + 1)
MARKS_short := and not long
MARKS_long := and long
# $(1) environment, $(2) marks, $(3) what, $(4) how pytest-xdist spreads it, $(5) variables, $(6) another LENGTH. -P: the checkout must not come before
# the installed package. Exit code 5, nothing was selected, is well where the choice may be empty.
PYTEST = { $(5) $(1)/bin/python -P -m pytest -n $(WORKERS) --dist $(4) -m '$(2) $(MARKS_$(or $(6),$(LENGTH)))' $(PYTEST_ARGS) $(3) \
	|| [ $$? = 5 -a -n "$(PYTEST_ARGS)$${TEST_ONLY}$(filter long,$(LENGTH))" ]; }
# Its goals run all, also after one that failed; then it sums up. The standard library is all that it needs.
RUN_TESTS = $$(scripts/find-python $(PYTHON)) scripts/run_tests.py $(if $(REPEAT),--repeat)

.PHONY: test test-long test-all
test: ## what must not break, in ten minutes on two processors: C, Python, real sessions on both SDKs, real gateways
	@newest=$$(scripts/gateways newest registry); $(RUN_TESTS) --folder build/tests/short \
		environments test-c test-py test-sdk2 test-gateway $${newest:+test-registry-$$newest} LENGTH=short

test-long: ## what `make test` leaves out: matrices, long models, every release and launcher of the gateway, valgrind
	@$(RUN_TESTS) --folder build/tests/long \
		environments test-c-long test-py test-sdk2 test-recipes test-gateway $(REGISTRY_GATEWAYS:%=test-registry-%) LENGTH=long

test-all: ## every test: `make test`, then `make test-long`, and the sum of both
	@code=0; rm -rf build/tests; $(MAKE) test || code=$$?; $(MAKE) test-long || code=$$?; \
	echo "=== both"; $(RUN_TESTS) --summary build/tests; exit $$code

.PHONY: next-gateway
next-gateway: $(VENV)/.installed $(VENV)/.group-test $(VENV)-gateway-$(lastword $(REGISTRY_GATEWAYS))/.installed ## a release of the gateway that is newer than those tested: what changed, and the registry's tests in it (RELEASE=1.0.11)
	$(BIN)/python -P scripts/next_gateway.py --environment $(abspath $(VENV)-gateway-next) \
		--tested $(abspath $(VENV)-gateway-$(lastword $(REGISTRY_GATEWAYS))) $(if $(RELEASE),--release $(RELEASE))

.PHONY: flaky
flaky: ## new tests again and again, under load (N=20, TESTS='tests/unit/test_x.py::test_y …')
	@$$(scripts/find-python $(PYTHON)) scripts/flaky.py --times $(or $(N),20) $(TESTS)

.PHONY: list-long
list-long: ## where tests are marked as long, and why
	@grep -rnoP 'mark\.long\("\K[^"]*' tests --include='*.py' --exclude=test_run_tests.py

.PHONY: environments test-c test-c-long test-py test-sdk2 test-recipes test-gateway test-registry soak
environments: $(VENV)/.installed $(VENV)/.group-test $(addprefix $(VENV)-,$(addsuffix /.installed,debug sdk2 gateway))

test-c: ## C tests: plain, under the address and thread sanitizers; the kept fuzz inputs
	@code=0; $(MAKE) -k -C tests/c check check-asan check-tsan || code=$$?; \
	$(MAKE) -C tests/fuzz replay || code=$$?; exit $$code

test-c-long: ## C tests: optimised, under valgrind; the model of the machine at length
	@$(MAKE) -k -C tests/c check-release check-valgrind check-long OPERATIONS=10000000

test-py: $(VENV)/.installed $(VENV)-debug/.installed $(VENV)/.group-test ## Python tests on the debug build, those that measure on the release build
	@code=0; $(call PYTEST,$(VENV)-debug,not release_build,,worksteal,PYTHONMALLOC=debug) || code=$$?; \
	$(call PYTEST,$(VENV),release_build,,worksteal) || code=$$?; exit $$code

# Affinity and the monitoring files ask nothing of the SDK.
WITH_SESSIONS = $(filter-out tests/integration/test_prometheus.py tests/integration/test_affinity%.py,$(wildcard tests/integration/test_*.py))
test-sdk2: $(VENV)-sdk2/.installed ## the tests with real sessions on the MCP SDK 2.x
	$(call PYTEST,$(VENV)-sdk2,not release_build,$(WITH_SESSIONS) \
		tests/security/test_wire.py tests/security/test_secrets.py,worksteal,PYTHONMALLOC=debug)

# Not -W error here either: these libraries warn of each other.
test-recipes: $(VENV)-recipes/.installed ## the recipes that need libraries of others (LangChain, FastMCP, Pydantic AI), and their types
	$(call PYTEST,$(VENV)-recipes,not release_build,-o filterwarnings=default tests/recipes,worksteal)

# Not -W error: the gateway and its many dependencies warn of what is theirs. The gateway takes long to start
# where the machine is busy, three workers of it more so: the limits are only there to end what hangs. A module's
# tests share its gateways, and so one process of pytest.
IN_GATEWAY := -o filterwarnings=default --timeout 400 -o faulthandler_timeout=430
test-gateway: $(VENV)-gateway/.installed ## the tests inside the real gateway
	$(call PYTEST,$(VENV)-gateway,not release_build,$(IN_GATEWAY) tests/gateway,loadfile)

test-registry: $(addprefix test-registry-,$(or $(filter-out 1.0.0rc1,$(GATEWAY)),$(REGISTRY_GATEWAYS))) ## the tests inside the gateways with the session registry (GATEWAY=1.1.0: in one)

# `make test` tries the newest release that this machine can run, so that `make test-long` owes it only the rest.
REGISTRY_LENGTH = $(if $(filter long,$(LENGTH)),$(if $(filter $*,$(shell scripts/gateways newest registry)),long,all),$(LENGTH))

.PHONY: $(REGISTRY_GATEWAYS:%=test-registry-%)
$(REGISTRY_GATEWAYS:%=test-registry-%): test-registry-%:
	@pythons=$$(scripts/gateways pythons $*); if ! scripts/find-python $$pythons >/dev/null; then \
		echo "!!! SKIPPED the tests in gateway $*: it needs one of $$pythons"; \
		[ -z "$$TEST_RECORD" ] || printf 'skipped\t1\t0\t$@\tit needs one of %s\n' "$$pythons" >>"$$TEST_RECORD"; \
		exit 0; fi; \
	$(MAKE) $(VENV)-gateway-$*/.installed && set -x && \
	$(call PYTEST,$(VENV)-gateway-$*,not release_build,$(IN_GATEWAY) tests/gateway_registry,loadfile,,$(REGISTRY_LENGTH))

SOAK_VENV := $(VENV)$(if $(filter 2,$(SDK)),-sdk2)
soak: $(SOAK_VENV)/.installed $(if $(filter 2,$(SDK)),,$(VENV)/.group-test) ## 10 minutes of calls while servers are killed and stopped (SECONDS=60, SDK=2)
	$(SOAK_VENV)/bin/python -P tests/soak/soak.py --seconds $(if $(filter command line,$(origin SECONDS)),$(SECONDS),600)

.PHONY: soak-errors
soak-errors: $(SOAK_VENV)/.installed $(if $(filter 2,$(SDK)),,$(VENV)/.group-test) ## 10 minutes of calls of which every third is answered with an error (SECONDS=60, SDK=2)
	$(SOAK_VENV)/bin/python -P tests/soak/errors.py --seconds $(if $(filter command line,$(origin SECONDS)),$(SECONDS),600)

.PHONY: soak-gateway
soak-gateway: ## 10 minutes of calls through the newest gateway while servers are killed and changed (SECONDS=60)
	@$(MAKE) soak-gateway-$(NEWEST_GATEWAY)

soak-gateway-%: $(VENV)-gateway-%/.installed
	$(VENV)-gateway-$*/bin/python -P tests/soak/gateway_soak.py \
		--seconds $(if $(filter command line,$(origin SECONDS)),$(SECONDS),600)

.PHONY: lab
lab: $(VENV)/.installed ## all that tries to break it, an hour, with one table at the end (LAB='--only load', LAB='--minutes 10')
	$(BIN)/python -P scripts/lab.py --venv $(VENV) $(if $(filter 1,$(shell nproc)),,--jobs 2) $(LAB)

.PHONY: mutants
# The real gateways judge too where their environments are there.
mutants: $(VENV)/.installed $(VENV)/.group-test ## makes mistakes in a copy of the code, and counts those that tests see (SECONDS=600 N=50 SEED=7)
	nice $(BIN)/python -P scripts/mutants.py --venv $(VENV) $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS)) \
		$(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED)) $(MUTANTS)

.PHONY: flooding
flooding: ## what hash flooding costs: the table of docs/security.md
	@mkdir -p build
	$(CC) -O2 -std=c11 -Wall -Wextra -Wconversion -Wshadow tests/security/flooding.c csrc/base/*.c -o build/flooding
	@build/flooding

.PHONY: fuzz
fuzz: ## random bytes for every fuzz target, a minute each (TARGET=pool SECONDS=3600); needs clang
	$(MAKE) -C tests/fuzz fuzz

.PHONY: sanitize sanitize-c sanitize-py
sanitize: sanitize-c sanitize-py ## C and Python tests under the sanitizers of addresses, leaks and undefined behaviour

sanitize-c:
	$(MAKE) -C tests/c check-asan

# libasan must be the first library of the process, which python is not linked with; libstdc++ beside it,
# or C++ exceptions of other extensions end the process. CPython and others keep memory at exit, so that leaks
# change no exit code (abort_on_error: other errors still do) but are sorted afterwards. All reports lie in
# build/lsan, as tests look at what their programs print.
sanitize-py: $(VENV)-asan/.installed $(VENV)/.group-test
	@rm -rf build/lsan && mkdir -p build/lsan
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:allow_user_segv_handler=0 \
	LSAN_OPTIONS=exitcode=0:log_path=$(abspath build/lsan)/report \
	UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	$(VENV)-asan/bin/python -P -m pytest -m 'not release_build' \
		--timeout 300 -o faulthandler_timeout=330 $(PYTEST_ARGS)
	$(BIN)/python -P scripts/extension_leaks.py build/lsan

# ---------------------------------------------------------------- quality

.PHONY: lint lint-workflows format
# The compiler sees each file twice, because asserts and checks exist in the debug build only.
lint: $(VENV)/.installed $(VENV)/.group-lint lint-workflows ## formatters, linters, types, stubs, and the compiler's warnings as errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd build && $(BIN)/python -P -m mypy.stubtest mcpgateway_pool._core --mypy-config-file ../pyproject.toml
	$(BIN)/python -P scripts/check_calls.py csrc/base csrc/metrics csrc/core csrc/python
	$(BIN)/clang-format --dry-run -Werror --ferror-limit=10 $(C_FILES)
	$(BIN)/clang-tidy --quiet $(C_SOURCES) -- -std=c11 -Icsrc -DMGP_DEBUG \
		-isystem "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')"
	MGP_WERROR=1 $(BIN)/python setup.py --quiet build_ext --force -b build/werror -t build/werror
	MGP_WERROR=1 MGP_DEBUG=1 $(BIN)/python setup.py --quiet build_ext --force -b build/werror -t build/werror

# By schemas that the tool carries, and without a question to the host: zizmor knows weak spots of workflows.
lint-workflows: $(VENV)/.group-lint
	@for kind in workflows:workflows/*.yml issue-forms:ISSUE_TEMPLATE/[!c]*.yml issue-config:ISSUE_TEMPLATE/config.yml; do \
		$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-$${kind%%:*} .github/$${kind#*:} || exit 1; done
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --no-progress --quiet .github

format: $(VENV)/.group-lint ## lay out C and Python sources
	$(BIN)/ruff check --fix-only --select I .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

.PHONY: docs
docs: $(VENV)-docs/.installed ## the pages of docs/ and the API reference, into build/docs; a link that leads nowhere is an error
	$(VENV)-docs/bin/python -P -m sphinx --fresh-env --write-all --quiet --fail-on-warning -b html -c docs . build/docs
	@echo "open build/docs/docs/index.html"

.PHONY: dist clean distclean
dist: $(VENV)/.group-dist ## build sdist and wheel, and try each in an empty environment
	rm -rf dist *.egg-info
	$(BIN)/python -P -m build --quiet
	$(BIN)/python scripts/check_dist.py dist

.PHONY: test-ports wheels
test-ports: $(VENV)/.group-wheels ## C tests on aarch64, musl, 32 bits, big-endian; unit tests on aarch64 (scripts/test_ports.py --packages: what to install)
	$(BIN)/python scripts/test_ports.py

wheels: $(VENV)/.group-wheels ## build sdist and wheels: CPython 3.11 to 3.13, glibc and musl, x86_64 and aarch64; check each (NATIVE=1: this kind only)
	rm -rf *.egg-info
	$(BIN)/python scripts/build_wheels.py $(if $(NATIVE),--native) dist

clean: ## remove what building and testing left
	rm -rf build benchmarks/simulation/build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	$(MAKE) -C tests/c clean
	$(MAKE) -C tests/fuzz clean

distclean: clean ## the same, and the environments
	rm -rf .venv .venv-* $(VENV) $(VENV)-debug $(VENV)-asan $(COMPLETE_VENVS) $(REGISTRY_VENVS)
