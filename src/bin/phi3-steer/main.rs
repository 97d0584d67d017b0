//! The native command: what the page computes, for researchers and tests.

mod command;
mod files;
mod header;
mod layout;

fn main() -> std::process::ExitCode {
    command::run()
}
