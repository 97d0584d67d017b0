//! The native command: what the page computes, for researchers and tests.

#[cfg(not(target_arch = "wasm32"))]
mod command;

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    command::run()
}

/// The browser runs the library.
#[cfg(target_arch = "wasm32")]
fn main() {}
