//! The native command: what the page computes, for researchers and tests.

mod command;

fn main() -> std::process::ExitCode {
    command::run()
}
