# phi3-steer. `make` lists what there is; each target installs what it lacks (scripts/setup.sh).

.PHONY: help demo small-model classroom package test bench gpu-check full-size fuzz synth nano

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build the page and open it: chat with the nano model (PORT=8080)
	@scripts/setup.sh rust site
	@scripts/demo.sh

small-model: ## SmolLM2-135M-Instruct, a real small chat model (98 MB, once), for the demo and the tests
	@scripts/small-model.sh

classroom: ## One folder that any static server serves without a network (MODELS="DIR..." OUT=classroom)
	@scripts/setup.sh rust site
	@scripts/classroom.sh "$(or $(OUT),classroom)" $(wildcard models/smollm2-135m-instruct/*.gguf) models/smollm2-135m-instruct-sae/layers.9 $(MODELS)

package: ## The engine as an npm package and as a crate, both in target/package
	@scripts/setup.sh rust site node
	@scripts/package.sh

test: ## All tests: native, in browsers, of the built page and the packages (ONLY="types native page package chromium firefox")
	@scripts/setup.sh rust site vulkan browser node firefox
	@scripts/test.sh $(ONLY)

bench: ## Measure speed on this machine: kernels, prefill, decoding, steering
	@scripts/setup.sh rust vulkan
	@scripts/bench.sh

gpu-check: ## A folder that checks and measures the engine on another Linux machine with a GPU (OUT=target/gpu-check)
	@scripts/setup.sh rust vulkan
	@scripts/gpu-check.sh $(OUT)

full-size: ## Phi-3 Mini's size with random weights, natively and in the browser (minutes; 5 GB of disk)
	@scripts/setup.sh rust site vulkan browser
	@scripts/test.sh full-size

fuzz: ## Fuzz the readers of files, ten minutes each (SECONDS_EACH=600 ONLY="gguf npz ..."); needs nightly Rust
	@scripts/setup.sh rust fuzz
	@scripts/fuzz.sh $(ONLY)

synth: ## A full-size model file of random weights, for tests (LIKE=phi-3-mini FORMAT=gguf-q4_k_m OUT=FILE)
	@scripts/setup.sh rust
	cargo run --locked --profile tool --bin phi3-steer -- synth --like $(or $(LIKE),phi-3-mini) \
		--format $(or $(FORMAT),gguf-q4_k_m) --out "$(or $(OUT),target/$(or $(LIKE),phi-3-mini).gguf)"

nano: ## Train the nano model and its dictionary again (about two hours on two cores; SEED=1)
	@scripts/setup.sh rust
	cargo run --locked --profile tool --features train --bin nano-train -- --seed $(or $(SEED),1) --out models/nano
