//! Trains the nano model and its dictionary from a seed.
fn main() {}
