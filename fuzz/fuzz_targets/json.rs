#![no_main]

#[path = "../readers.rs"]
#[allow(dead_code)]
mod readers;

#[global_allocator]
static ALLOCATOR: readers::Counting = readers::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| readers::json(data));
