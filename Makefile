# Each target installs what it needs into .venv and .tools, says so, and does it once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first Python that runs and is new enough.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Most of the time tests wait for processes. A file is one worker's, and so are its servers.
PARALLEL := --numprocesses 2 --dist loadfile
UNIT := -m unit --hypothesis-profile unit
FAST := tests/test_tidy.py tests/test_rooms.py tests/test_documented.py \
	tests/collector/wire tests/indexer/query

LOGS ?=
TEXTS ?=
DATA ?= .everyline
PORT ?=

KAFKA := $(shell sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' tests/real_parts/pom.xml)
VERSITYGW := 1.8.0
KUBERNETES := $(shell sed -n 's:^require k8s.io/kubernetes v::p' \
	tests/real_parts/kubernetes/go.mod.in)
# Outside of the tree: it takes minutes to build.
KUBERNETES_DIR := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/everyline/kubernetes-$(KUBERNETES)

##@ Use

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z_-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/.run ## Start all of it here. LOGS="folder ..." DATA=folder PORT=number
	@exec $(BIN)/everyline up $(foreach folder,$(LOGS),--logs $(folder)) \
		--data $(DATA) $(if $(PORT),--port $(PORT))

##@ Develop

.PHONY: check
check: .venv/.dev ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: test
test: .venv/.dev tools ## Run all tests, with a real Kafka and a real S3 server. ARGS="-k name"
	$(BIN)/pytest $(PARALLEL) $(ARGS)

.PHONY: unit
unit: .venv/.dev ## Run the quick tests, which need nothing but Python. ARGS="-k name"
	$(BIN)/pytest $(UNIT) --numprocesses logical --maxprocesses 8 --dist worksteal $(ARGS)

.PHONY: fast
fast: .venv/.dev ## Run what takes seconds: the tree's own rules, and functions of values alone
	$(BIN)/pytest $(UNIT) $(FAST)

.PHONY: test-kubernetes
test-kubernetes: need-etcd .venv/.dev $(KUBERNETES_DIR)/kube-apiserver
test-kubernetes: ## Run the tests with a real Kubernetes API server. ARGS="-k name"
	$(BIN)/pytest -m kubernetes $(ARGS)

.PHONY: test-node
test-node: need-node .venv/.dev $(KUBERNETES_DIR)/kubelet .tools/bin/write_lines
test-node: ## Run the tests on a real node, containerd and kubelet (Linux, root). ARGS="-k name"
	$(BIN)/pytest -m node $(ARGS)

.PHONY: test-spark
test-spark: .venv/.dev .tools/spark/.done ## Read the tables with Spark (Java 17). ARGS="-k name"
	$(BIN)/pytest -m spark $(ARGS)

.PHONY: bench
bench: .venv/.dev .venv/.bench
bench: ## Measure speed and cost. LOGS="folder ..." TEXTS="name=folder ..." ARGS="--only ship"
	@test -n "$(LOGS)$(TEXTS)" || { echo 'make bench: name what to measure with, LOGS="folder ..."' \
		'in the kubelet'"'"'s layout or TEXTS="name=folder ..."'; exit 1; }
	$(BIN)/python -m load_tests.bench $(foreach folder,$(LOGS),--logs $(folder)) \
		$(foreach text,$(TEXTS),--text $(text)) $(ARGS)

.PHONY: damage
damage: .venv/.dev ## Flip bits of all that is stored. DATA="folder of everyline up" ARGS="--stride 7"
	@test -n "$(DATA)" || { echo 'make damage: name a folder of everyline up, DATA="folder"'; exit 1; }
	$(BIN)/python -m load_tests.damage --data $(DATA) $(ARGS)

.PHONY: pins
pins: .venv/.dev ## Take new versions of all dependencies into requirements/
	$(call compile,dev,pyproject.toml --extra all --group dev --upgrade)
	$(call compile,run,pyproject.toml --extra all -c requirements/dev.txt --upgrade)
	$(call compile,collector,pyproject.toml --extra collector -c requirements/dev.txt --upgrade)
	$(call compile,spark,--group pyproject.toml:spark --upgrade)
	$(call compile,build,--group pyproject.toml:build -c requirements/dev.txt --upgrade)
	$(call compile,bench,--group pyproject.toml:bench -c requirements/dev.txt --upgrade)

# Pins with hashes, for all platforms, that name no host to load from.
compile = $(BIN)/uv pip compile --quiet $(2) --output-file requirements/$(1).txt --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make pins'

.PHONY: clean
clean: ## Remove what make has installed and built; DATA stays
	rm -rf .venv .tools build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: tools
tools: .tools/kafka-$(KAFKA)/.done .tools/versitygw-$(VERSITYGW).done

# ---- set-up

.venv/.python:
	@test -n "$(PYTHON)" || { echo 'make: Python 3.11 or newer is missing; install it (Debian 12:' \
		'apt-get install python3.11-venv) or name it, PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'make: PYTHON=$(PYTHON) does not run or is older than 3.11; name another'; exit 1; }
	@echo "make: creating .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.run: .venv/.python requirements/run.txt requirements/build.txt pyproject.toml
	@echo 'make: installing requirements/run.txt and Everyline into .venv'
	$(call install,-r requirements/run.txt -r requirements/build.txt)

.venv/.dev: .venv/.python requirements/dev.txt pyproject.toml
	@echo 'make: installing requirements/dev.txt and Everyline into .venv'
	$(call install,-r requirements/dev.txt)

# What others need is measured where it can be installed; the benchmark says what it leaves out.
.venv/.bench: .venv/.dev requirements/bench.txt
	@echo 'make: installing requirements/bench.txt into .venv (several hundred MB)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/bench.txt || echo 'make: could not install it; going on without'
	@touch $@

# The build backend is pinned as well, hence no isolation: nothing comes in without a hash.
define install
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes $(1)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@echo 'make: compiling the kernels'
	@$(BIN)/python -c 'from indexer.compile import compile_kernels; compile_kernels()'
	@$(BIN)/python -c 'from indexer.query.filter import compile_kernels; compile_kernels()'
	@touch $@
endef

# $(call need,command that succeeds if it is there,what is missing and how to get it)
need = @{ $(1); } >/dev/null 2>&1 || { echo "make: the tests need $(2)"; exit 1; }

define need_java
	$(call need,java -version 2>&1 | awk -F'[".]' '/version/ { exit !($$2 >= 17) }',Java 17 or newer: \
		apt-get install openjdk-17-jre-headless)
	$(call need,command -v mvn,Maven: apt-get install maven)
endef

.tools/spark/.done: requirements/spark.txt tests/real_parts/spark/pom.xml | .venv/.dev
	$(need_java)
	@echo 'make: installing PySpark and Delta Lake for it into .tools/spark (minutes)'
	@rm -rf $(@D)
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/spark.txt
	@mvn --quiet --batch-mode --strict-checksums --file tests/real_parts/spark/pom.xml \
		dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D)/jars
	@touch $@

.tools/kafka-$(KAFKA)/.done: tests/real_parts/pom.xml
	$(need_java)
	@echo 'make: installing Apache Kafka $(KAFKA) into .tools'
	@rm -rf $(@D) && mkdir -p $(@D)
	@mvn --quiet --batch-mode --strict-checksums --file tests/real_parts/pom.xml \
		dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D)/lib
	@touch $@

need_go = $(call need,go env GOVERSION | awk -F'[o.]' '{ exit !($$2 > 1 || $$3 >= 25) }',Go 1.25 \
	or newer: see go.dev/doc/install)

.tools/versitygw-$(VERSITYGW).done:
	$(need_go)
	@echo 'make: building versitygw $(VERSITYGW) into .tools (minutes the first time)'
	@mkdir -p .tools/bin
	@GOBIN=$(CURDIR)/.tools/bin go install github.com/versity/versitygw/cmd/versitygw@v$(VERSITYGW)
	@rm -f .tools/versitygw-*.done && touch $@

$(KUBERNETES_DIR)/kube-apiserver $(KUBERNETES_DIR)/kubelet:
	$(need_go)
	@echo 'make: building $(@F) of Kubernetes $(KUBERNETES) into $(@D) (minutes, but once)'
	@mkdir -p $(@D)
	@cp tests/real_parts/kubernetes/go.mod.in $(@D)/go.mod
	@cd $(@D) && go build -mod=mod -trimpath \
		-ldflags '-s -w -X k8s.io/component-base/version.gitVersion=v$(KUBERNETES)' \
		k8s.io/kubernetes/cmd/$(@F)

.tools/bin/write_lines: tests/real_parts/kubernetes/write_lines.go
	$(need_go)
	@echo 'make: building the program of the test pods into .tools'
	@mkdir -p $(@D)
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ $<

.PHONY: need-etcd
need-etcd:
	$(call need,command -v etcd,etcd: apt-get install etcd-server)

.PHONY: need-node
need-node:
	$(call need,test "$$(uname -s)" = Linux,Linux: containerd and the kubelet run nowhere else)
	$(call need,test "$$(id -u)" = 0,root: they make namespaces and cgroups; run sudo make test-node)
	$(call need,command -v containerd && command -v ctr,containerd: apt-get install containerd)
	$(call need,command -v runc,runc: apt-get install runc)
