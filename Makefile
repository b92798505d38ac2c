# Two commands do everything on a fresh machine with Python 3.11+, make and a package index:
#   make demo    make a corpus of samples/, train a small LLaMA on it and let it talk
#   make test    format, lint, types, all tests, the demo included
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.PHONY: demo test check setup soak peers benchmarks clean

demo: $(STAMP)
	$(BIN)/criadero demo configs/demo.toml

test: check
	$(BIN)/python -m pytest -m "not demo" -n 3 --dist loadgroup
	$(BIN)/python -m pytest -m demo

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(STAMP)

$(STAMP):
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "criadero needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	rm -f $(VENV)/.ready-*
	touch $@

soak: $(STAMP)
	$(BIN)/python -m pytest tests/faults/soak.py tests/faults/corpus_soak.py --timeout 3600 -s

# Each system that a benchmark compares with gets its own pinned environment.
LLAMACPP := benchmarks/peers/llamacpp/.venv
peers: $(patsubst %,benchmarks/peers/%/.venv/.ready,huggingface litgpt datatrove llamacpp lm_eval) $(LLAMACPP)/bin/llama-server

benchmarks/peers/datatrove/.venv/.ready: benchmarks/peers/datatrove/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	touch $@

# llama.cpp, compiled for this CPU from its source: minutes, and only here; it needs a C++ compiler. Without AMX,
# which virtual machines announce and then stop the process for.
NO_AMX := $(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
benchmarks/peers/llamacpp/.venv/.ready: benchmarks/peers/llamacpp/requirements.txt
	$(PYTHON) -m venv $(@D)
	CFLAGS="$(NO_AMX)" CXXFLAGS="$(NO_AMX)" CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" \
		$(@D)/bin/pip install --quiet --no-cache-dir --force-reinstall --no-binary llama-cpp-python --requirement $<
	touch $@

# Its server, from the same source with the same flags, but without its page and TLS: those need a download and OpenSSL.
LLAMACPP_SERVER := -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
	-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
$(LLAMACPP)/bin/llama-server: $(LLAMACPP)/.ready
	rm -rf $(LLAMACPP)/source
	mkdir $(LLAMACPP)/source
	$(@D)/pip install --quiet cmake==4.4.4
	$(@D)/pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(LLAMACPP)/source \
		"$$(grep '^llama-cpp-python==' benchmarks/peers/llamacpp/requirements.txt)"
	tar -xzf $(LLAMACPP)/source/*.tar.gz -C $(LLAMACPP)/source --strip-components 1
	CFLAGS="$(NO_AMX)" CXXFLAGS="$(NO_AMX)" $(@D)/cmake -S $(LLAMACPP)/source/vendor/llama.cpp \
		-B $(LLAMACPP)/source/build $(LLAMACPP_SERVER) >/dev/null
	$(@D)/cmake --build $(LLAMACPP)/source/build --target llama-server --parallel 2 >/dev/null
	mv $(LLAMACPP)/source/build/bin/llama-server $@
	rm -rf $(LLAMACPP)/source

benchmarks/peers/%/.venv/.ready: benchmarks/peers/%/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet $(shell grep '^torch==' constraints.txt)
	$(@D)/bin/pip install --quiet --requirement $<
	touch $@

# The model in one file that serving and decoding are measured with; it is fetched once.
GGUF = "$$(PYTHONPATH=tests $(BIN)/python -c 'import packaged; print(packaged.packaged_file("smollm2-gguf"))')"

benchmarks: $(STAMP) peers
	$(BIN)/python benchmarks/train_cpu.py --save
	$(BIN)/python benchmarks/decode_cpu.py $(GGUF) --save
	$(BIN)/python benchmarks/serve.py $(GGUF) --save
	$(BIN)/python benchmarks/scaling.py --save
	$(BIN)/python benchmarks/tokenize.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/corpus.py --save

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
