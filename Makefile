# The commands one would type. `make run` and `make test` need no earlier step and may be repeated.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CATALOGUES := automx/translations
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --retries 10 --timeout 60
DRIVERS := mysql,postgresql,redis
# A checkout keeps its data to itself: no configuration file or database of this machine is touched.
RUN_ENV := AUTOMX_CONF=$(or $(AUTOMX_CONF),/dev/null) AUTOMX_DB_URI=$(or $(AUTOMX_DB_URI),sqlite:///$(CURDIR)/var/automx.sqlite)

# Programs start often in the tests: compiled modules are kept, whatever this shell wants.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run test coverage lint format reference translations bench soak fuzz lock man deb release test-packages docs \
  screenshots clean
.DELETE_ON_ERROR:

setup: $(VENV)/.dev

run: $(VENV)/.run
	@mkdir -p var
	@$(RUN_ENV) $(BIN)/automx db upgrade
	@$(RUN_ENV) $(BIN)/automx seed --sample --if-empty
	@$(RUN_ENV) $(BIN)/automx serve --host 127.0.0.1 --port 4243 --examples || [ $$? -eq 130 ]

# Each worker has servers of its own, and many tests wait: two workers more than processors keep all busy.
# They begin with an equal part of the tests each, in order, and one that has ended takes over half of what
# another has left: few servers are started twice, and none idles.
PYTEST := pytest --numprocesses=$(shell expr $$(nproc) + 2) --maxprocesses=6 --dist=worksteal

# While one processor checks the types, the other compiles the tests.
test: $(VENV)/.dev
	@tests/install-packages
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null & $(MAKE) --no-print-directory lint && wait
	@$(BIN)/python -m $(PYTEST)

coverage: $(VENV)/.dev
	@tests/install-packages
	@rm -rf var/coverage && mkdir -p var/coverage
	@status=0; $(BIN)/python -m coverage run -m $(PYTEST) || status=$$?; \
	  $(BIN)/python -m coverage combine --quiet; $(BIN)/python -m coverage report; exit $$status

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Writes contrib/automx.conf and the references in docs/ from the code, and where the project is from
# pyproject.toml.
reference: $(VENV)/.dev
	@$(BIN)/python docs/reference.py
	@$(BIN)/python docs/commands.py
	@$(BIN)/python docs/project.py

# Brings the catalogues up to date with the texts of the pages; edit the .po files, and run it again.
translations: $(VENV)/.dev
	@$(BIN)/pybabel -q extract --mapping pyproject.toml --no-location --omit-header --sort-output \
	  --add-comments Translators: --strip-comments --output $(CATALOGUES)/messages.pot .
	@$(BIN)/pybabel -q update --input-file $(CATALOGUES)/messages.pot --output-dir $(CATALOGUES) \
	  --ignore-pot-creation-date --no-fuzzy-matching --ignore-obsolete
	@$(BIN)/pybabel -q compile --directory $(CATALOGUES)

bench: $(VENV)/.dev
	@tests/install-packages
	@$(BIN)/python -m bench

# Mixed requests for 20 minutes, while each neighbour is restarted once; MINUTES=2 makes it shorter.
MINUTES ?= 20
soak: $(VENV)/.dev
	@tests/install-packages
	@$(BIN)/python -m bench.soak --minutes $(MINUTES)

# A million inputs for all parsers, then 100,000 requests; FUZZ="--inputs 5000 row" makes it shorter.
fuzz: $(VENV)/.fuzz
	@$(BIN)/python -m tests.fuzz $(FUZZ)

# Writes the newest releases that pyproject.toml allows into constraints.txt, from which all install.
lock: PIP := var/lock/bin/python -m pip
lock: | $(VENV)/bin/python
	@rm -rf var/lock && $(BIN)/python -m venv var/lock
	@$(PIP) install --quiet --quiet --upgrade 'pip>=25.1'
	@$(PIP) install --quiet --quiet -e '.[$(DRIVERS)]' --group dev --group docs --group fuzz \
	  --group packages
	@{ echo '# The releases that are tested; `make lock` renews them.'; $(PIP) freeze --exclude-editable; } >constraints.new
	@mv constraints.new constraints.txt
	@rm -rf var/lock

# The manual as a site, in var/site. Each link within it is checked.
docs: $(VENV)/.docs
	@rm -rf var/site
	@$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet -c docs . var/site
	@echo "The manual is in var/site/index.html"

# Takes the pictures of the documentation anew, into docs/pictures; only root can.
screenshots: $(VENV)/.dev
	@tests/install-packages chromium dovecot-imapd dovecot-pop3d dovecot-submissiond dovecot-managesieved \
	  fonts-dejavu-core fonts-inter nsd pngquant
	@$(BIN)/python -m docs.screenshots

# Writes the man pages of all commands into dist/man.
man: $(VENV)/.dev
	@$(BIN)/python docs/manpages.py dist/man

# Builds dist/automx_VERSION_ARCHITECTURE.deb, for Debian 12 and 13.
deb: $(VENV)/.dev
	@tests/install-packages debhelper dpkg-dev
	@$(BIN)/python -m contrib.packages.deb

# Builds wheel, source and Debian package into dist, if tag, version and CHANGELOG.md agree and nothing is
# left to commit.
release: $(VENV)/.dev
	@$(BIN)/python docs/release.py --tag "$(TAG)"
	@rm -rf dist && mkdir dist
	@$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@$(BIN)/python docs/release.py dist/*.whl dist/*.tar.gz
	@$(MAKE) --no-print-directory deb
	@cd dist && sha256sum -- * >SHA256SUMS
	@echo "The release is in dist"

# Builds the packages, tries them on bare Debians, and writes what was seen into docs/packages.md.
test-packages: $(VENV)/.packages
	@tests/install-packages buildah caddy curl debhelper docker-compose dpkg-dev gnupg lintian mmdebstrap \
	  postgresql redis-server systemd-container yamllint
	@$(BIN)/python -m pytest contrib/packages

clean:
	rm -rf $(VENV) var dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "automx needs Python 3.11 or later: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tests/install-packages python3-venv
	@echo "Creating the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing automx"
	@for try in 1 2 3; do $(PIP) --constraint constraints.txt -e . && exit 0; sleep 5; done; exit 1
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing automx with its development tools"
	@for try in 1 2 3; do $(PIP) --upgrade 'pip>=25.1' \
	  && $(PIP) --constraint constraints.txt -e '.[$(DRIVERS)]' --group dev && exit 0; sleep 5; done; exit 1
	@touch $@ $(VENV)/.run

$(VENV)/.docs: $(VENV)/.run
	@echo "Installing Sphinx"
	@for try in 1 2 3; do $(PIP) --upgrade 'pip>=25.1' \
	  && $(PIP) --constraint constraints.txt --group docs && exit 0; sleep 5; done; exit 1
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	@echo "Installing atheris"
	@for try in 1 2 3; do $(PIP) --constraint constraints.txt --group fuzz && exit 0; sleep 5; done; exit 1
	@touch $@

$(VENV)/.packages: $(VENV)/.dev
	@echo "Installing the tools that try packages"
	@for try in 1 2 3; do $(PIP) --constraint constraints.txt --group packages && exit 0; sleep 5; done; exit 1
	@touch $@
