# make quickstart, make test: both make .venv first if it is not there.

PYTHON ?= python3
BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: quickstart test slow lint parity clean help

help:
	@echo "make quickstart  train, evaluate, draw, export and serve a small SSD on built-in data (minutes)"
	@echo "make test        run the tests, on TensorFlow and on JAX"
	@echo "make slow        run the tests that take minutes more"
	@echo "make lint        ruff and mypy"
	@echo "make parity      compare with torch and ONNX themselves (installs both)"
	@echo "make clean       remove .venv and what the above made"

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kerasdet wants Python 3.11 or newer; say make PYTHON=python3.11"; exit 2; }
	@echo "Making .venv and installing kerasdet (a few minutes, about 1 GB of downloads)..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

quickstart: $(BIN)/.installed
	$(BIN)/python tools/quickstart.py

# Twice: everything on TensorFlow, then what runs on every back end once more on JAX.
test: $(BIN)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow" tests/test_boxes.py tests/test_matching.py tests/test_losses.py tests/test_suppression.py tests/test_region.py tests/test_region_proposals.py tests/test_windows.py tests/test_weight_decay.py tests/layers --ignore=tests/layers/test_roi_pooling.py tests/detectors/test_ssd.py
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow" tests/contracts -k "gradient or without_objects or names_and_shapes or starts_from or unknown_labels"
	@echo "All tests passed. Nothing was left behind but .venv."

# What takes minutes more.
slow: $(BIN)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadscope -m slow
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist load tests/contracts -k "by_heart or fast_rcnn"
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist load tests/detectors tests/layers/test_roi_pooling.py tests/test_greedy_merge.py --ignore=tests/detectors/test_ssd.py

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# With torch and the ONNX tools, which are large: what the tests above say they skip without them.
parity: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 --editable '.[onnx]'
	$(BIN)/python -m pytest tests/weights/test_torch_file.py tests/export/test_converted.py

clean:
	rm -rf .venv runs quickstart
