//! Servers that do odd things, in a dedicated worker of a real browser: what is odd but harmless works, what
//! a server does not hand out is not there, nothing is taken without a bound or waited for without end.
#![cfg(target_arch = "wasm32")]

#[path = "support/fetch.rs"]
mod fetch;
#[path = "support/gguf.rs"]
mod file;

use fetch::{Server, bytes};
use phi3_steer::checkpoint::*;
use phi3_steer::phi3::ModelFiles;
use phi3_steer::sae::{Dictionary, Wanted};
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

const SIZE: usize = 10_000;
const ADDRESS: &str = "https://models.invalid/model.safetensors";
const FOLDER: &str = "https://models.invalid/nano?key=1";

#[wasm_bindgen_test]
async fn odd_answers_are_understood() {
    let data = bytes(SIZE);
    for (script, asked) in [
        // Ranges refused.
        ("416", vec![0.0, -1.0]),
        // Ranges of what the browser has already unpacked.
        ("gzip ok", vec![0.0, -1.0]),
        ("gzip-hidden ok", vec![0.0, -1.0]),
        // No length.
        ("hidden ok", vec![0.0, -1.0]),
        ("star ok", vec![0.0, -1.0]),
        ("html-typed", vec![0.0]),
        // Less than was asked, as some servers give at once.
        ("part:4000", vec![0.0, 4000.0, 8000.0]),
        (
            "part:4000 part:3000 503 ok",
            vec![0.0, 4000.0, 7000.0, 7000.0],
        ),
        // Another rule from some request on.
        ("part:4000 416", vec![0.0, 4000.0, -1.0]),
        ("drop:2500 gzip ok", vec![0.0, 2500.0, -1.0]),
    ] {
        let server = Server::of(&data, script);
        let source = HttpSource::open(ADDRESS).await.expect(script);
        assert_eq!(source.len().await.expect(script), SIZE as u64, "{script}");
        let read = source.read(0..SIZE as u64).await.expect(script);
        assert!(read == data, "{script}");
        assert_eq!(server.asked(), asked, "{script}");
        assert_eq!(source.read(17..99).await.expect(script), &data[17..99]);
        drop(source);
        assert_eq!(server.open(), 0.0, "{script}");
    }
    // Neither ranges nor the file.
    let server = Server::of(&data, "416 416");
    let source = HttpSource::open(ADDRESS)
        .await
        .expect("the second is a plain request");
    assert_eq!(source.len().await.expect("a length"), SIZE as u64);
    drop(server);
    // An empty file.
    let server = Server::of(&[], "416");
    let source = HttpSource::open(ADDRESS).await.expect("opens");
    assert_eq!(source.len().await.expect("a length"), 0);
    assert_eq!(server.asked(), [0.0, -1.0]);
}

#[wasm_bindgen_test]
async fn silence_is_no_answer() {
    let data = bytes(SIZE);
    for (script, asked) in [
        ("impatient stall:2500 ok", vec![0.0, 2500.0]),
        ("impatient silent ok", vec![0.0, 0.0]),
        (
            "impatient stall:2500 silent stall:10 ok",
            vec![0.0, 2500.0, 2500.0, 2510.0],
        ),
    ] {
        let server = Server::of(&data, script);
        let source = HttpSource::open(ADDRESS).await.expect(script);
        assert!(
            source.read(0..SIZE as u64).await.expect(script) == data,
            "{script}"
        );
        assert_eq!(server.asked(), asked, "{script}");
        drop(source);
        assert_eq!(server.open(), 0.0, "{script}");
    }
    let server = Server::of(&data, "impatient silent");
    let error = HttpSource::open(ADDRESS)
        .await
        .err()
        .expect("no answer comes");
    assert!(
        error.to_string().contains("nothing came for 30 seconds"),
        "{error}"
    );
    assert_eq!(server.asked().len(), 5);
}

#[wasm_bindgen_test]
async fn what_a_server_does_not_hand_out_is_not_there() {
    for status in [400, 401, 403, 404, 405, 406, 410, 451] {
        let server = Server::start(SIZE, &status.to_string());
        let folder = Folder::url(FOLDER);
        assert!(
            folder
                .open("config.json")
                .await
                .expect("can be asked")
                .is_none()
        );
        assert_eq!(server.asked(), [0.0], "{status}");
        // Said where nothing was found, with the status and the address.
        let error = ModelFiles::open(&folder).await.err().expect("is no model");
        let error = error.to_string();
        assert!(
            error.contains("no model in https://models.invalid/nano/"),
            "{error}"
        );
        let told = error.contains(&format!(
            "config.json, its server refused it with status {status}"
        ));
        assert_eq!(told, ![404, 410].contains(&status), "{error}");
        let error = folder.require("x.bin").await.err().expect("is not there");
        assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
    }
    let server = Server::start(SIZE, "html");
    let error = ModelFiles::open(&Folder::url(FOLDER))
        .await
        .err()
        .expect("is no model");
    assert!(
        error.to_string().contains("a web page in its place"),
        "{error}"
    );
    let error = HttpSource::open(ADDRESS).await.err().expect("is a page");
    assert!(error.to_string().contains("a web page"), "{error}");
    drop(server);
    // An error of the network is none of permissions, once the server has answered.
    let server = Server::start(SIZE, "404 fail");
    let folder = Folder::url(FOLDER);
    assert!(folder.open("a").await.expect("can be asked").is_none());
    let error = folder
        .open("b")
        .await
        .err()
        .expect("the network fails")
        .to_string();
    assert!(
        !error.contains("CORS") && error.contains("nano/b?key=1"),
        "{error}"
    );
    drop(server);
    let server = Server::start(SIZE, "fail");
    let error = Folder::url(FOLDER)
        .open("b")
        .await
        .err()
        .expect("fails")
        .to_string();
    assert!(error.contains("CORS"), "{error}");
    drop(server);
    // Relative addresses are shown as what they stand for.
    let server = Server::start(SIZE, "fail");
    let error = Folder::url("models/x")
        .open("b")
        .await
        .err()
        .expect("fails")
        .to_string();
    assert!(
        error.contains("://") && error.contains("/models/x/b"),
        "{error}"
    );
    assert!(!error.contains("CORS"), "{error}");
    drop(server);
}

#[wasm_bindgen_test]
async fn nothing_is_taken_without_a_bound() {
    for script in ["endless", "all", "ok"] {
        let server = Server::start(200_000, script);
        let folder = Folder::url(FOLDER);
        let error = folder.bytes("config.json", 20_000).await.expect_err(script);
        assert!(
            matches!(error, SourceError::TooLarge { cap: 20_000, .. }),
            "{error}"
        );
        // What was on its way.
        assert!(server.sent() <= 30_000.0, "{script}: {}", server.sent());
        assert_eq!(server.open(), 0.0, "{script}");
    }
}

#[wasm_bindgen_test]
async fn a_gguf_file_is_read_in_one_request() {
    let mut gguf = file::File::default();
    gguf.key("general.architecture", file::Stored::text("phi3"));
    let words: Vec<String> = (0..20_000).map(|i| format!("word {i}")).collect();
    gguf.key("tokenizer.ggml.tokens", file::Stored::texts(&words));
    let mut expected = Vec::new();
    for i in 0..30 {
        let numbers: Vec<f32> = (0..1000).map(|n| (n * i) as f32).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        gguf.tensor(&format!("blk.{i}.attn_norm.weight"), &[1000], 0, &bytes);
        expected.push((format!("model.layers.{i}.input_layernorm.weight"), numbers));
    }
    let server = Server::of(&gguf.bytes(), "ok");
    let folder = Folder::url("https://models.invalid/a/phi3.gguf?download=true");
    let found = Gguf::find(&folder)
        .await
        .expect("is read")
        .expect("is there");
    let checkpoint = Checkpoint::from_gguf(found).expect("is a model");
    let mut runs: Vec<_> = expected
        .iter()
        .flat_map(|(name, numbers)| {
            checkpoint
                .runs(name)
                .into_iter()
                .map(move |run| (run, name, numbers))
        })
        .collect();
    runs.sort_by_key(|(run, ..)| (run.file, run.start));
    for (_, name, numbers) in runs {
        assert_eq!(
            &checkpoint.vector(name, 1000).await.expect("is read"),
            numbers
        );
    }
    assert_eq!(server.asked(), [0.0]);
    drop(checkpoint);
    assert_eq!(server.open(), 0.0);
}

#[wasm_bindgen_test]
async fn looking_for_what_is_not_there_takes_few_requests() {
    let gpu = phi3_steer::gpu::Gpu::open(&phi3_steer::gpu::GpuOptions::default())
        .await
        .expect("a device");
    for (address, layers, most) in [
        // The folder of one dictionary, by its name: its own files alone.
        ("https://saes.invalid/layers.3", 32, 7),
        ("https://saes.invalid/layer_3/width_16k", 32, 7),
        // One of several: the blocks of the model, then the other formats.
        ("https://saes.invalid/", 6, 13),
    ] {
        let server = Server::start(SIZE, "404");
        let wanted = Wanted {
            layers: Some(layers),
            ..Wanted::default()
        };
        let error = Dictionary::find(&gpu, &Folder::url(address), wanted)
            .await
            .err();
        assert!(error.expect("is not there").to_string().contains(address));
        assert!(
            server.asked().len() <= most,
            "{address}: {}",
            server.asked().len()
        );
    }
    let server = Server::start(SIZE, "404");
    let error = ModelFiles::open(&Folder::url("https://models.invalid/x"))
        .await
        .err();
    assert!(
        error
            .expect("is not there")
            .to_string()
            .contains("no model")
    );
    assert_eq!(server.asked().len(), 7);
}
