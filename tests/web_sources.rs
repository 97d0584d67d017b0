//! Files at addresses and chosen by the visitor, in a dedicated worker of a real browser. Addresses
//! are `blob:` (which answer ranges) and `data:` (which do not), and a stand-in for `fetch` plays
//! the servers that fail.
#![cfg(target_arch = "wasm32")]

#[path = "support/fetch.rs"]
mod fetch;
#[path = "support/gguf.rs"]
mod file;

use std::cell::RefCell;
use std::rc::Rc;

use fetch::{Server, bytes};
use js_sys::{Array, Uint8Array};
use phi3_steer::checkpoint::*;
use wasm_bindgen_test::*;
use web_sys::{Blob, Url};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

fn blob(bytes: &[u8]) -> Blob {
    let parts = Array::of1(&Uint8Array::from(bytes));
    Blob::new_with_u8_array_sequence(&parts).expect("a blob")
}

fn blob_url(bytes: &[u8]) -> String {
    Url::create_object_url_with_blob(&blob(bytes)).expect("an address")
}

/// A safetensors file with one bf16 tensor `x` of shape `[rows, 4]`, all ones.
fn checkpoint(rows: usize) -> Vec<u8> {
    let header = format!(
        "{{\"x\":{{\"dtype\":\"BF16\",\"shape\":[{rows},4],\"data_offsets\":[0,{}]}}}}",
        rows * 8
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0x80, 0x3F].repeat(rows * 4));
    file
}

const SIZE: usize = 10_000;
const ADDRESS: &str = "https://models.invalid/model.safetensors";

#[wasm_bindgen_test]
async fn blobs_are_read_by_slices() {
    let data = bytes(SIZE);
    let source = BlobSource::new("x", blob(&data));
    assert_eq!(source.len().await.expect("a length"), SIZE as u64);
    assert_eq!(
        source.read(100..5000).await.expect("is read"),
        &data[100..5000]
    );
    assert!(source.read(7..7).await.expect("is read").is_empty());
    assert!(matches!(
        source.read(0..10_001).await,
        Err(SourceError::OutOfRange { .. })
    ));
}

#[wasm_bindgen_test]
async fn chosen_files_make_a_folder() {
    let files = vec![
        ("nano/config.json".to_string(), blob(b"{}")),
        (
            "nano/model.safetensors".to_string(),
            blob(&checkpoint(1000)),
        ),
        ("nano/sae/cfg.json".to_string(), blob(b"[]")),
    ];
    let folder = Folder::blobs(files);
    assert_eq!(
        folder
            .require_bytes("config.json", 10)
            .await
            .expect("is read"),
        b"{}"
    );
    assert_eq!(
        folder
            .require_bytes("sae/cfg.json", 10)
            .await
            .expect("is read"),
        b"[]"
    );
    assert!(
        folder
            .open("tokenizer.json")
            .await
            .expect("can be asked")
            .is_none()
    );
    read_checkpoint(&folder).await;
    let parts = Array::of1(&"{}".into());
    let file = web_sys::File::new_with_str_sequence(&parts, "config.json").expect("a file");
    let folder = Folder::files(&[file]);
    assert_eq!(
        folder
            .require_bytes("config.json", 10)
            .await
            .expect("is read"),
        b"{}"
    );
}

/// Reads the tensor of [`checkpoint`]`(1000)` in blocks.
async fn read_checkpoint(folder: &Folder) {
    let c = Checkpoint::open(folder, "model").await.expect("opens");
    let mut seen = 0;
    c.rows("x", &[1000, 4], 800, |first, rows| {
        assert_eq!(first, seen);
        assert!(rows.iter().all(|&v| v == 1.0));
        seen += rows.len() / 4;
        Ok::<_, CheckpointError>(())
    })
    .await
    .expect("is read");
    assert_eq!(seen, 1000);
}

#[wasm_bindgen_test]
async fn real_addresses_with_and_without_ranges() {
    let data = bytes(SIZE);
    let url = blob_url(&data);
    let source = HttpSource::open(&url).await.expect("opens");
    assert_eq!(source.len().await.expect("a length"), SIZE as u64);
    for range in [
        0..8,
        8..300,
        5000..10_000,
        10..20,
        0..10_000,
        10_000..10_000,
    ] {
        let read = source.read(range.clone()).await.expect("is read");
        assert_eq!(read, &data[range.start as usize..range.end as usize]);
    }
    Url::revoke_object_url(&url).expect("is revoked");
    let source = HttpSource::open("data:text/plain,0123456789")
        .await
        .expect("opens");
    assert_eq!(source.len().await.expect("a length"), 10);
    assert_eq!(source.read(3..6).await.expect("is read"), b"345");
    assert_eq!(source.read(0..2).await.expect("is read"), b"01");
    // A blob that is gone: the browser gives no status.
    let error = HttpSource::open(&url).await.err().expect("is gone");
    assert!(matches!(error, SourceError::Network { .. }), "{error}");
}

#[wasm_bindgen_test]
async fn reads_in_a_row_share_a_request() {
    let server = Server::start(SIZE, "ok");
    let source = HttpSource::open(ADDRESS).await.expect("opens");
    let data = bytes(SIZE);
    for at in (0..9000).step_by(700) {
        let end = at as u64 + 700;
        assert_eq!(
            source.read(at as u64..end).await.expect("is read"),
            &data[at..at + 700]
        );
    }
    assert_eq!(server.asked(), [0.0]);
    // Back, and a small gap ahead.
    assert_eq!(source.read(50..60).await.expect("is read"), &data[50..60]);
    assert_eq!(
        source.read(4050..4060).await.expect("is read"),
        &data[4050..4060]
    );
    assert_eq!(server.asked(), [0.0, 50.0]);
    drop(source);
    assert_eq!(server.open(), 0.0, "connections stay open");
}

#[wasm_bindgen_test]
async fn a_broken_download_goes_on_where_it_broke() {
    let data = bytes(SIZE);
    for (script, asked) in [
        ("drop:2500 503 ok", vec![0.0, 2500.0, 2500.0]),
        ("short:3000 429 ok", vec![0.0, 3000.0, 3000.0]),
        ("503 fail ok", vec![0.0, 0.0, 0.0]),
        // The server stops answering ranges.
        ("drop:2500 all", vec![0.0, 2500.0]),
        ("all-drop:5000 all", vec![0.0, 0.0]),
    ] {
        let server = Server::start(SIZE, script);
        let source = HttpSource::open(ADDRESS).await.expect(script);
        let read = source.read(0..SIZE as u64).await.expect(script);
        assert!(read == data, "{script}");
        assert_eq!(server.asked(), asked, "{script}");
        drop(source);
        assert_eq!(server.open(), 0.0, "{script}");
    }
}

#[wasm_bindgen_test]
async fn failures_are_told_apart() {
    let open = |script: &'static str| async move {
        let server = Server::start(SIZE, script);
        let error = HttpSource::open(ADDRESS).await.err().expect(script);
        (error, server.asked().len())
    };
    let (error, asked) = open("404").await;
    assert!(
        matches!(error, SourceError::Status { status: 404, .. }),
        "{error}"
    );
    assert_eq!(asked, 1, "a missing file is not asked for again");
    let (error, asked) = open("403").await;
    assert!(
        matches!(error, SourceError::Status { status: 403, .. }),
        "{error}"
    );
    assert!(error.to_string().contains(ADDRESS), "{error}");
    assert_eq!(asked, 1);
    let (error, asked) = open("500").await;
    assert!(
        matches!(error, SourceError::Status { status: 500, .. }),
        "{error}"
    );
    assert_eq!(asked, 5);
    let (error, asked) = open("fail").await;
    assert!(
        matches!(
            error,
            SourceError::Network {
                at: 0,
                begun: false,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(asked, 5);
    let (error, _) = open("wrong").await;
    assert!(matches!(error, SourceError::BadAnswer { .. }), "{error}");

    let read = |script: &'static str| async move {
        let server = Server::start(SIZE, script);
        let source = HttpSource::open(ADDRESS).await.expect(script);
        let error = source.read(0..SIZE as u64).await.expect_err(script);
        (error, server.asked().len())
    };
    let (error, asked) = read("drop:2500 fail").await;
    assert!(
        matches!(
            error,
            SourceError::Network {
                at: 2500,
                begun: true,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(asked, 5, "the break was the first of five tries");
    let (error, _) = read("short:2500 short:0").await;
    assert!(
        matches!(
            error,
            SourceError::Short {
                at: 2500,
                expected: 10_000,
                ..
            }
        ),
        "{error}"
    );
}

#[wasm_bindgen_test]
async fn a_file_that_changes_is_noticed() {
    let server = Server::start(SIZE, "etag:a etag:b");
    let source = HttpSource::open(ADDRESS).await.expect("opens");
    source.read(0..10).await.expect("is read");
    let error = source.read(5..10).await.expect_err("is another file now");
    assert!(error.to_string().contains("changed"), "{error}");
    drop(server);
}

#[wasm_bindgen_test]
async fn a_folder_at_an_address() {
    let server = Server::start(SIZE, "404");
    let folder = Folder::url("https://models.invalid/nano");
    assert!(
        folder
            .open("config.json")
            .await
            .expect("can be asked")
            .is_none()
    );
    let error = folder
        .require("config.json")
        .await
        .err()
        .expect("is not there");
    assert!(matches!(error, SourceError::NotFound { .. }));
    assert!(
        error.to_string().contains("https://models.invalid/nano/"),
        "{error}"
    );
    let error = Checkpoint::open(&folder, "model")
        .await
        .err()
        .expect("is not there");
    assert!(
        matches!(error, CheckpointError::NoWeights { .. }),
        "{error}"
    );
    drop(server);
    // A start page in the place of a missing file.
    let server = Server::start(SIZE, "html");
    // A folder remembers what was not there.
    let folder = Folder::url("https://models.invalid/nano");
    assert!(
        folder
            .open("config.json")
            .await
            .expect("can be asked")
            .is_none()
    );
    drop(server);
    let server = Server::start(SIZE, "ok");
    let folder = Folder::url("https://models.invalid/nano");
    let error = folder
        .require_bytes("config.json", 100)
        .await
        .expect_err("is too large");
    assert!(
        matches!(error, SourceError::TooLarge { cap: 100, .. }),
        "{error}"
    );
    let error = Checkpoint::open(&folder, "model")
        .await
        .err()
        .expect("is no checkpoint");
    assert!(matches!(error, CheckpointError::Header { .. }), "{error}");
    assert_eq!(server.open(), 0.0, "connections stay open");
}

#[wasm_bindgen_test]
async fn a_gguf_file_is_found_wherever_it_is() {
    let mut file = file::File::default();
    file.key("general.architecture", file::Stored::text("phi3"));
    let gguf = blob(&file.bytes());
    let files = ["README.md", "Phi-3.GGUF", "old/x.gguf"];
    let files = files.map(|name| (format!("phi3/{name}"), gguf.clone()));
    let folder = Folder::blobs(files.into());
    let names = folder.names().expect("can be asked");
    assert_eq!(names, Some(vec!["Phi-3.GGUF".into(), "README.md".into()]));
    let found = Gguf::find(&folder).await.expect("is read");
    let found = found.expect("is there");
    let architecture = found.metadata().text("general.architecture");
    assert_eq!(architecture.expect("is a text"), Some("phi3"));

    let folder = Folder::url("https://models.invalid/nano");
    assert_eq!(folder.names().expect("can be asked"), None);
    let server = Server::start(SIZE, "ok");
    let folder = Folder::url("https://models.invalid/a/phi3.gguf?download=true");
    let names = folder.names().expect("can be asked");
    assert_eq!(names, Some(vec!["phi3.gguf".into()]));
    let other = folder.open("config.json").await.expect("can be asked");
    assert!(other.is_none());
    let error = Gguf::find(&folder).await.err().expect("is no GGUF file");
    assert!(matches!(error, CheckpointError::Gguf { .. }), "{error}");
    assert!(error.to_string().starts_with(folder.label()), "{error}");
    assert_eq!(server.asked(), [0.0]);
    assert_eq!(server.open(), 0.0, "connections stay open");
}

#[wasm_bindgen_test]
async fn progress_is_told_and_cancelling_stops() {
    for script in ["ok", "all", "drop:2500 ok", "all-drop:5000 all"] {
        let server = Server::start(SIZE, script);
        let told = Rc::new(RefCell::new(Vec::new()));
        let (listener, cancel) = (told.clone(), Cancel::new());
        let folder = Folder::url("https://models.invalid")
            .on_progress(move |p: &Progress| listener.borrow_mut().push(p.clone()))
            .cancelled_by(&cancel);
        let source = folder.require("a.bin").await.expect(script);
        let data = source.read_all(1 << 20).await.expect(script);
        assert!(data == bytes(SIZE), "{script}");
        let told = told.borrow();
        assert!(told.len() >= 5, "{script}: told {} times", told.len());
        assert!(
            told.windows(2).all(|w| w[0].loaded <= w[1].loaded),
            "{script}: {told:?}"
        );
        assert!(
            told.iter()
                .all(|p| p.file == "a.bin" && p.total == SIZE as u64),
            "{script}: {told:?}"
        );
        assert_eq!(told.last().map(|p| p.loaded), Some(SIZE as u64), "{script}");
        drop(server);
    }
    // Cancelled from a listener, in the middle of a read.
    for script in ["ok", "all"] {
        let server = Server::start(SIZE, script);
        let cancel = Cancel::new();
        let stop = cancel.clone();
        let folder = Folder::url("https://models.invalid")
            .on_progress(move |p: &Progress| {
                if p.loaded >= 3000 {
                    stop.cancel();
                }
            })
            .cancelled_by(&cancel);
        let result = match folder.require("a.bin").await {
            Ok(source) => source.read_all(1 << 20).await,
            Err(error) => Err(error),
        };
        assert!(
            matches!(result, Err(SourceError::Cancelled { .. })),
            "{script}: {result:?}"
        );
        assert_eq!(server.asked().len(), 1, "{script}");
        assert!(matches!(
            folder.open("b.bin").await,
            Err(SourceError::Cancelled { .. })
        ));
    }
}
