//! The native command: what the page computes, for researchers and tests.

mod command;
mod header;
mod layout;
mod output;

fn main() -> std::process::ExitCode {
    quiet_drivers();
    command::run()
}

/// Mesa looks for a Wayland display when the Vulkan instance is made, and without `XDG_RUNTIME_DIR`, as on
/// machines without a desktop, libwayland writes a line about that on standard error. No display is wanted
/// here: any folder that has none in it will do.
#[cfg(unix)]
fn quiet_drivers() {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";
    if std::env::var_os(VARIABLE).is_none_or(|folder| folder.is_empty()) {
        // SAFETY: nothing else runs yet: this is the first statement of `main`, and the only thread.
        unsafe { std::env::set_var(VARIABLE, std::env::temp_dir()) };
    }
}

#[cfg(not(unix))]
fn quiet_drivers() {}
