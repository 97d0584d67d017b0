//! The readers on the corpus of the fuzzers and on random damage to it: nothing may panic, hang, or
//! allocate out of proportion.
#![cfg(not(target_arch = "wasm32"))]

#[path = "../fuzz/readers.rs"]
mod readers;

use std::path::Path;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};

#[global_allocator]
static ALLOCATOR: readers::Counting = readers::Counting;

/// The longest that a file of a few kilobytes may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Damages `bytes` as a fuzzer does.
fn damage(rng: &mut StdRng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] = rng.random(),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes.truncate(at),
            3 => {
                let end = (at + rng.random_range(0..9)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                // Numbers that lengths and offsets often are, when they are wrong.
                let number: u64 = *[0, 1, 255, 1 << 31, u64::MAX, u64::MAX / 8, 1 << 40]
                    .choose(rng)
                    .unwrap();
                let number = &number.to_le_bytes()[..*[1, 4, 8].choose(rng).unwrap()];
                let end = (at + number.len()).min(bytes.len());
                bytes.splice(at..end, number.iter().copied());
            }
            _ => {
                let other = others.choose(rng).unwrap();
                let from = rng.random_range(0..=other.len());
                let to = (from + rng.random_range(0..65)).min(other.len());
                let part = other[from..to].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}

// One test: what is allocated is counted for the whole process.
#[test]
fn nothing_that_is_read_panics_hangs_or_fills_the_memory() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, read) in readers::READERS {
        let files = std::fs::read_dir(corpus.join(name)).unwrap();
        let files: Vec<Vec<u8>> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(files.len() > 1, "{name} has no corpus");
        let within = |bytes: &[u8], what: &str| {
            let start = Instant::now();
            read(bytes);
            let took = start.elapsed();
            assert!(took < LIMIT, "{name}: {what} took {took:?}");
        };
        files.iter().for_each(|file| within(file, "the corpus"));
        for _ in 0..2000 {
            let mut bytes = files.choose(&mut rng).unwrap().clone();
            damage(&mut rng, &mut bytes, &files);
            within(&bytes, "a damaged file");
        }
    }
}
