//! What each operator does to h, in f64: for the tests in the library and beside it.

/// The c in h + c d, after what the operators that put the reconstruction in place of h have done; `f` is the
/// activation of the feature whose decoder row d is, none along a direction that is no feature's; `along` is
/// <h, d> and `squares` <d, d>.
pub fn coefficient(op: &str, value: f64, f: Option<f64>, along: f64, squares: f64) -> f64 {
    let norm = squares.sqrt();
    match (op, f) {
        ("clamp", Some(f)) => value - f,
        ("clamp", None) => (value - along / norm) / norm,
        ("add", _) => value,
        ("scale", Some(f)) => (value - 1.0) * f,
        ("project_out", _) => -along / squares,
        ("cap", _) => (value - along / norm).min(0.0) / norm,
        ("amplify", _) => (value - 1.0) * along / squares,
        ("clamp_replace" | "reconstruct", _) => 0.0,
        _ => panic!("{op} has no reference here"),
    }
}
