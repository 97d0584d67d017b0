//! What is fuzzed: each function takes bytes from anywhere and reads them as one kind of file, as far
//! as a model's loading does. It may refuse them; it must not panic, hang, or allocate out of
//! proportion. The ordinary tests replay the corpus through the same functions.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use phi3_steer::checkpoint::{Checkpoint, Folder, Gguf, MemorySource, Npz, Value, json};
use phi3_steer::phi3::{Config, ModelFiles};
use phi3_steer::sae::check_config;
use phi3_steer::tokens::{ChatTokenizer, Message, Role};
use pollster::block_on;

/// Reads bytes as one kind of file.
pub type Reader = fn(&[u8]);

/// All readers, by the name of their target.
pub const READERS: [(&str, Reader); 8] = [
    ("safetensors", safetensors),
    ("index", index),
    ("gguf", gguf),
    ("config", config),
    ("tokenizer", tokenizer),
    ("json", json),
    ("npz", npz),
    ("cfg", cfg),
];

/// Bytes in memory at most for each byte of a header: entries in maps, names twice, sorting.
const HEADER: usize = 32;

/// Bytes in memory at most for each byte of a tokenizer: the parsed text, maps of the vocabulary both
/// ways, merges.
const TOKENIZER: usize = 256;

/// Bytes in memory at most for each byte of JSON of any kind: a value is 32, a list grows by doubling, and
/// a key of an object has room for eleven.
const VALUES: usize = 256;

/// Bytes that deflate packs into one, at most.
const DEFLATE: usize = 1032;

/// What the expressions that cut text into words weigh, as bytes of a file.
const WORDS: usize = 64 << 10;

/// Counts the bytes that are allocated.
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: all calls go to the system's allocator as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it is copied there are both.
        more(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What `f` gives; it may hold `per_byte` bytes at once for each of `len`, and 64 KiB.
fn bounded<T>(len: usize, per_byte: usize, f: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    let took = PEAK.load(Relaxed).saturating_sub(before);
    let most = len * per_byte + (64 << 10);
    assert!(took <= most, "{took} bytes allocated for a file of {len}");
    result
}

/// Parts of `data` that a line of three dashes separates.
fn parts(data: &[u8]) -> Vec<&[u8]> {
    const LINE: &[u8] = b"\n---\n";
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at + LINE.len() <= data.len() {
        if data[at..].starts_with(LINE) {
            parts.push(&data[start..at]);
            at += LINE.len();
            start = at;
        } else {
            at += 1;
        }
    }
    parts.push(&data[start..]);
    parts
}

fn memory(name: &str, data: &[u8]) -> MemorySource {
    MemorySource::new(name, data.to_vec())
}

/// One safetensors file, all its tensors.
pub fn safetensors(data: &[u8]) {
    let source = memory("model.safetensors", data).into();
    let opened = bounded(data.len(), HEADER, || {
        block_on(Checkpoint::from_source(source))
    });
    if let Ok(checkpoint) = opened {
        read_all(&checkpoint, data.len());
    }
}

/// The index of a sharded checkpoint, and its shards.
pub fn index(data: &[u8]) {
    let names = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let files = names.iter().zip(parts(data));
    let files = files.map(|(name, part)| (name.to_string(), part.to_vec()));
    let folder = Folder::memory("memory", files.collect());
    let opened = bounded(data.len(), HEADER, || {
        block_on(Checkpoint::open(&folder, "model"))
    });
    if let Ok(checkpoint) = opened {
        read_all(&checkpoint, data.len());
    }
}

/// Reads all tensors, as much of each as a file of `len` bytes can hold.
fn read_all(checkpoint: &Checkpoint, len: usize) {
    for name in checkpoint.names() {
        let Some(info) = checkpoint.info(name) else {
            continue;
        };
        let shape = info.shape.clone();
        let mut numbers = 0;
        let read = checkpoint.rows(name, &shape, 1 << 16, |_, rows| {
            numbers += rows.len();
            Ok::<_, phi3_steer::checkpoint::CheckpointError>(())
        });
        if block_on(read).is_ok() {
            // No format takes less than 4 bits for a number.
            assert!(
                numbers <= 2 * len,
                "{name}: {numbers} numbers from {len} bytes"
            );
        }
    }
}

/// A GGUF file: its metadata, its model's configuration, its vocabulary, its tensors.
pub fn gguf(data: &[u8]) {
    let source = memory("model.gguf", data).into();
    let Ok(gguf) = bounded(data.len(), HEADER, || block_on(Gguf::open(source))) else {
        return;
    };
    let metadata = gguf.metadata();
    for key in metadata.keys() {
        if let Some(value) = metadata.get(key) {
            walk(value);
        }
    }
    for name in gguf.names() {
        if let Some(tensor) = gguf.tensor(name) {
            assert!(tensor.range.end <= data.len() as u64);
        }
    }
    let built = bounded(data.len() + WORDS, TOKENIZER, || {
        ChatTokenizer::from_gguf(metadata)
    });
    if let Ok(tokenizer) = built {
        use_tokenizer(&tokenizer);
    }
    let folder = Folder::memory("memory", vec![("model.gguf".into(), data.to_vec())]);
    if let Ok(files) = block_on(ModelFiles::open(&folder)) {
        read_all(&files.checkpoint, data.len());
    }
}

fn walk(value: Value<'_>) {
    if let Value::Array(array) = value {
        assert_eq!(array.iter().count(), array.len());
        array.iter().for_each(walk);
    }
}

/// JSON of any kind: what is read is what `serde_json` reads, where it reads anything.
pub fn json(data: &[u8]) {
    let ours = bounded(data.len(), VALUES, || {
        json::from_slice::<serde_json::Value>(data)
    });
    if let Ok(theirs) = serde_json::from_slice::<serde_json::Value>(data) {
        match ours {
            Ok(ours) => assert_eq!(ours, theirs),
            Err(error) => assert!(data.len() > json::MAX_VALUES, "{error}"),
        }
    }
}

/// `config.json`.
pub fn config(data: &[u8]) {
    if let Ok(config) = bounded(data.len(), VALUES, || Config::from_json(data)) {
        config.rotary_table(0..3, false);
        config.rotary_table(0..3, true);
        config.parameters();
    }
}

/// `tokenizer.json` and the files beside it.
pub fn tokenizer(data: &[u8]) {
    let names = [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ];
    let files = names.iter().zip(parts(data));
    let files = files.map(|(name, part)| (name.to_string(), part.to_vec()));
    let folder = Folder::memory("memory", files.collect());
    let read = || block_on(ChatTokenizer::open(&folder));
    if let Ok(tokenizer) = bounded(data.len() + WORDS, TOKENIZER, read) {
        use_tokenizer(&tokenizer);
    }
}

/// A NumPy archive, all its arrays.
pub fn npz(data: &[u8]) {
    let source = memory("params.npz", data).into();
    // The directory is read through a buffer of its own.
    let opened = bounded(data.len() + (64 << 10), HEADER, || {
        block_on(Npz::open(source))
    });
    let Ok(npz) = opened else { return };
    for name in npz.names() {
        let Some(array) = npz.array_of(name) else {
            continue;
        };
        let rows = bounded(data.len() + (64 << 10), 4 * DEFLATE, || {
            block_on(async {
                let mut rows = npz.reader(name, &array.shape, 0..usize::MAX).await.ok()?;
                let mut numbers = 0;
                while let Some((_, values)) = rows.next().await.ok()? {
                    numbers += values.len();
                }
                Some(numbers)
            })
        });
        if let Some(numbers) = rows {
            assert!(numbers <= DEFLATE * data.len(), "{name}: {numbers} numbers");
        }
    }
}

/// A dictionary's `cfg.json`.
pub fn cfg(data: &[u8]) {
    // What is no dictionary is refused.
    let _ = bounded(data.len(), HEADER, || check_config("cfg.json", data));
}

/// Encodes and decodes.
fn use_tokenizer(tokenizer: &ChatTokenizer) {
    let text = "Hello, w\u{f6}rld \u{1f600}!\n  <|end|>  it's 12345";
    if let Ok(ids) = tokenizer.encode(text) {
        tokenizer.decode(&ids);
        ids.iter().for_each(|&id| drop(tokenizer.token_text(id)));
    }
    // What goes wrong is refused.
    let _ = tokenizer.encode_markup(text);
    let roles = [Role::System, Role::User, Role::Assistant];
    let messages = roles.map(|role| Message {
        role,
        content: text.into(),
    });
    let _ = tokenizer.chat(&messages, true);
    tokenizer.token_text(u32::MAX);
    tokenizer.stop_tokens();
}
