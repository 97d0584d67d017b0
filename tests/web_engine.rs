//! The JavaScript API in a dedicated worker: loading from files and addresses, chat in two lanes,
//! steering, cancelling.
#![cfg(target_arch = "wasm32")]

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Object, Uint8Array};
use phi3_steer::web::Engine;
use rand::Rng;
use serde_json::{Value, json};
use support::engine::*;
use support::fresh_rng;
use support::small::*;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

#[wasm_bindgen_test]
async fn loads_from_files_with_progress() {
    let mut rng = fresh_rng();
    let random = random_model(&mut rng);
    let model = model_files(&random);
    let sae = dictionary(&mut rng, WIDTH).files("");
    let options = options(&model, Some(&sae));
    let heard = Rc::new(RefCell::new(Vec::new()));
    let ear = heard.clone();
    let listener = Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
        ear.borrow_mut().push(from_js(event));
    });
    set(&options, "onProgress", listener.as_ref());
    let engine = load(&options).await.expect("an engine");

    let heard = heard.take();
    let mut stages: Vec<&str> = heard.iter().filter_map(|e| e["stage"].as_str()).collect();
    stages.dedup();
    let wanted = ["config", "tokenizer", "weights", "dictionary", "warmup"];
    assert_eq!(stages, wanted);
    let weights = heard.iter().rfind(|e| e["file"] == "model.safetensors");
    let weights = weights.expect("progress of the weights");
    let size = random.safetensors().len();
    assert_eq!(
        (&weights["loaded"], &weights["total"]),
        (&json!(size), &json!(size))
    );

    let info = from_js(engine.info().expect("info").into());
    assert_eq!(info["model"]["layers"], 2);
    assert_eq!(info["model"]["hidden"], WIDTH);
    assert_eq!(info["model"]["vocab"], VOCAB);
    assert_eq!(info["model"]["context"], CONTEXT);
    // A small model's plain numbers.
    assert_eq!(info["model"]["quant"], json!(["q8"]));
    assert_eq!(info["model"]["parameters"], random.config.parameters());
    assert!(info["model"]["gpuBytes"].as_f64() > Some(0.0));
    let sae = &info["sae"];
    assert_eq!(
        (&sae["hook"], &sae["features"], &sae["k"]),
        (&json!(HOOK), &json!(100), &json!(6))
    );
    assert_eq!(
        (&sae["kind"], &sae["stored"]),
        (&json!("sparsify"), &json!("f32"))
    );
    assert!(
        info["adapter"]["name"]
            .as_str()
            .is_some_and(|n| !n.is_empty())
    );
    engine.dispose();
}

async fn test_sae(engine: &Engine) -> Result<Value, Refusal> {
    let test = engine.test_sae().await.map_err(Refusal::of)?;
    Ok(from_js(test.into()))
}

#[wasm_bindgen_test]
async fn a_dictionary_is_tested_on_demand() {
    let engine = engine().await;
    let ask = question("What is the capital of France?", 5);
    let first = chat(&engine, &ask).await.expect("an answer");
    // A random dictionary rebuilds nothing, and the test says so.
    let test = test_sae(&engine).await.expect("a test");
    assert_eq!(test["fit"]["hook"], HOOK);
    assert_eq!(test["verdict"]["kind"], "nowhere");
    assert_eq!(test_sae(&engine).await.expect("a test"), test);
    // The conversation goes on as if nothing had been.
    let again = chat(&engine, &ask).await.expect("an answer");
    assert_eq!(ids(&first, 0), ids(&again, 0));

    // It is stopped by a cancel, wherever that comes.
    let mut rng = fresh_rng();
    for _ in 0..3 {
        let (testing, other) = (engine.clone(), engine.clone());
        let after = rng.random_range(0..3);
        wasm_bindgen_futures::spawn_local(async move {
            sleep(after).await;
            other.cancel();
        });
        match test_sae(&testing).await {
            Err(refused) => assert_eq!(refused.code, "cancelled", "{}", refused.message),
            Ok(whole) => assert_eq!(whole, test),
        }
        sleep(5).await;
        check_order(&chat(&engine, &ask).await.expect("an answer"), 5);
    }

    let mut rng = fresh_rng();
    let files = model_files(&random_model(&mut rng));
    let bare = load(&options(&files, None)).await.expect("an engine");
    let refused = test_sae(&bare).await.expect_err("no dictionary");
    assert_eq!(refused.code, "bad-request", "{}", refused.message);
    bare.dispose();
}

fn memory(engine: &Engine) -> (f64, f64) {
    let memory = from_js(engine.memory().expect("figures").into());
    let of = |name: &str| memory[name].as_f64().expect("a number");
    (of("gpuBytes"), of("heapBytes"))
}

#[wasm_bindgen_test]
async fn the_engine_tells_its_memory_as_it_is() {
    let mut rng = fresh_rng();
    let files = model_files(&random_model(&mut rng));
    let sae = dictionary(&mut rng, WIDTH).files("");
    let mut first = None;
    for _ in 0..3 {
        let engine = load(&options(&files, Some(&sae))).await.expect("an engine");
        let info = from_js(engine.info().expect("info").into());
        let (gpu, heap) = memory(&engine);
        assert!(gpu > info["model"]["gpuBytes"].as_f64().expect("a number"));
        assert_eq!(*first.get_or_insert(gpu), gpu);
        assert!(heap >= info["heapBytes"].as_f64().expect("a number"));
        chat(&engine, &question("Hello", 5))
            .await
            .expect("an answer");
        test_sae(&engine).await.expect("a test");
        assert_eq!(memory(&engine).0, gpu, "something was left behind");
        let answer = start(&engine, &question("Hello", 50)).expect("an answer");
        answer.next().await.expect("no error");
        engine.dispose();
        // Freed once the answer has noticed.
        let _ = answer.rest().await;
        assert_eq!(memory(&engine).0, 0.0);
    }
}

#[wasm_bindgen_test]
async fn two_lanes_answer_in_order_and_alike() {
    let engine = engine().await;
    let ask = question("What is the capital of France?", 10);
    let first = chat(&engine, &ask).await.expect("an answer");
    check_order(&first, 10);
    assert_eq!(
        ids(&first, 0),
        ids(&first, 1),
        "lanes differ with steering off"
    );
    for lane in 0..2 {
        let prompt = of_type(&first, "prompt", lane)[0];
        let text: String = prompt["tokens"]
            .as_array()
            .expect("tokens")
            .iter()
            .map(|t| t["text"].as_str().expect("a token's text"))
            .collect();
        assert!(text.contains("France"), "{text}");
        for token in of_type(&first, "token", lane) {
            assert_eq!(token["steered"], false);
            assert!(token.get("activation").is_none() && token.get("top").is_none());
        }
    }
    // The same again, from the cache.
    let again = chat(&engine, &ask).await.expect("an answer");
    assert_eq!(ids(&first, 0), ids(&again, 0));
    let of = |events: &[Value], what: &str| of_type(events, "prompt", 0)[0][what].clone();
    let prompt = of(&again, "tokens").as_array().expect("tokens").len();
    assert_eq!(of(&again, "reused"), prompt - 1);
    // Draws are the same in both lanes and in the next answer, and others with another seed.
    let draw = |seed| {
        let mut ask = ask.clone();
        ask["sampling"] = json!({"temperature": 3.0, "topP": 0.95, "seed": seed});
        ask
    };
    let drawn = chat(&engine, &draw(1)).await.expect("an answer");
    assert_eq!(ids(&drawn, 0), ids(&drawn, 1));
    let again = chat(&engine, &draw(1)).await.expect("an answer");
    assert_eq!(ids(&drawn, 0), ids(&again, 0));
    let other = chat(&engine, &draw(2)).await.expect("an answer");
    assert_ne!(ids(&drawn, 0), ids(&other, 0));
}

#[wasm_bindgen_test]
async fn steering_concerns_its_lane_alone() {
    let engine = engine().await;
    let mut ask = question("Name a colour.", 10);
    let text = "Name a colour.".into();
    let features = engine.top_features(text, HOOK.into(), 3.into()).await;
    let features = from_js(features.map_err(Refusal::of).expect("features").into());
    let tokens = features["tokens"].as_array().expect("tokens");
    assert!(tokens.len() > 3);
    for token in tokens {
        let top = token["top"].as_array().expect("features");
        assert!(!top.is_empty() && top.len() <= 3);
        let values: Vec<f64> = top.iter().filter_map(|t| t[1].as_f64()).collect();
        assert!(values.is_sorted_by(|a, b| a >= b) && values[top.len() - 1] > 0.0);
    }
    let strongest = tokens[tokens.len() - 1]["top"][0][0]
        .as_u64()
        .expect("a feature");

    ask["track"] = json!({"hook": HOOK, "feature": strongest});
    ask["topFeatures"] = 6.into();
    let base = chat(&engine, &ask).await.expect("an answer");
    check_order(&base, 10);
    let active = |lane| {
        let prompt = of_type(&base, "prompt", lane)[0];
        let tokens = prompt["tokens"].as_array().expect("tokens").clone();
        let says = tokens
            .iter()
            .map(|t| t["activation"].as_f64().expect("a value"));
        says.fold(0.0, f64::max)
    };
    assert!(active(0) > 0.0, "the strongest feature is nowhere active");
    assert_eq!(active(0), active(1));
    for token in of_type(&base, "token", 0).iter().rev().skip(1) {
        let own = token["activation"].as_f64().expect("a value");
        let mut top = token["top"].as_array().expect("features").iter();
        match top.find(|t| t[0] == strongest) {
            Some(listed) => assert_eq!(listed[1].as_f64(), Some(own)),
            None => assert_eq!(own, 0.0),
        }
    }

    let clamp = json!([{"hook": HOOK, "feature": strongest, "op": "clamp", "value": 40}]);
    set_steering(&engine, 1, clamp.clone()).expect("accepted");
    let steered = chat(&engine, &ask).await.expect("an answer");
    check_order(&steered, 10);
    assert_eq!(
        ids(&steered, 0),
        ids(&base, 0),
        "the other lane has changed"
    );
    assert_ne!(ids(&steered, 1), ids(&base, 1), "nothing has changed");
    let all = |lane, on: bool| {
        let tokens = of_type(&steered, "token", lane);
        tokens.iter().all(|t| t["steered"] == on)
    };
    assert!(all(0, false) && all(1, true));

    for (lane, list) in [
        (2, clamp),
        (
            0,
            json!([{"hook": HOOK, "feature": 100, "op": "clamp", "value": 1}]),
        ),
        (0, json!([{"hook": HOOK, "feature": 1, "op": "clamp"}])),
        (
            0,
            json!([{"hook": "layers.1", "feature": 1, "op": "clamp", "value": 1}]),
        ),
    ] {
        let refused = set_steering(&engine, lane, list.clone()).expect_err("nonsense");
        assert_eq!(refused.code, "bad-steering", "{list}: {}", refused.message);
    }
    for list in [
        json!([{"hook": HOOK, "feature": 1, "op": "explode"}]),
        json!("x"),
    ] {
        let refused = set_steering(&engine, 0, list.clone()).expect_err("nonsense");
        assert_eq!(refused.code, "bad-request", "{list}: {}", refused.message);
    }

    set_steering(&engine, 1, json!([])).expect("accepted");
    let off = chat(&engine, &ask).await.expect("an answer");
    assert_eq!((ids(&off, 0), ids(&off, 1)), (ids(&base, 0), ids(&base, 1)));
}

#[wasm_bindgen_test]
async fn cancel_ends_an_answer_within_a_token() {
    let engine = engine().await;
    let answer = start(&engine, &question("Count to a hundred.", 60)).expect("an answer");
    let mut before = 0;
    while before < 2 {
        let event = answer.next().await.expect("no error").expect("more events");
        // Lane 1 is told of last.
        before += usize::from(event["type"] == "token" && event["lane"] == 1);
    }
    engine.cancel();
    let after = answer.rest().await.expect("an orderly end");
    for lane in 0..2 {
        let done = of_type(&after, "done", lane)[0];
        assert_eq!(done["reason"], "cancelled");
        // The one being computed, and the one that waited to be told.
        assert!(ids(&after, lane).len() <= 2, "{after:?}");
    }
    // The stream's own cancel does the same.
    let answer = start(&engine, &question("Count to a hundred.", 60)).expect("an answer");
    answer.next().await.expect("no error");
    JsFuture::from(answer.reader.cancel())
        .await
        .expect("cancelled");
    let mut waited = 0;
    let ask = question("And now?", 3);
    let next = loop {
        match start(&engine, &ask) {
            Ok(answer) => break answer.rest().await.expect("an answer"),
            Err(e) if e.code == "busy" && waited < 200 => {
                waited += 1;
                sleep(50).await;
            }
            Err(e) => panic!("{e:?} after {waited} waits"),
        }
    };
    check_order(&next, 3);
}

#[wasm_bindgen_test]
async fn an_answer_ends_where_the_context_does() {
    let engine = engine().await;
    let events = chat(&engine, &question("Go on for ever.", 10 * CONTEXT)).await;
    let events = events.expect("an answer");
    for lane in 0..2 {
        let prompt = of_type(&events, "prompt", lane)[0]["tokens"].as_array();
        let prompt = prompt.expect("tokens").len();
        let done = of_type(&events, "done", lane)[0];
        // A random model may say a stop token.
        if done["reason"] != "stop" {
            assert_eq!(done["reason"], "context");
            assert!(prompt + ids(&events, lane).len() >= CONTEXT - 1);
        }
        assert!(prompt + ids(&events, lane).len() <= CONTEXT + 1);
    }
    check_order(
        &chat(&engine, &question("Hello", 5))
            .await
            .expect("an answer"),
        5,
    );
}

#[wasm_bindgen_test]
async fn a_disposed_engine_says_so() {
    let mut rng = fresh_rng();
    let files = model_files(&random_model(&mut rng));
    let engine = load(&options(&files, None)).await.expect("an engine");
    let refused = engine
        .top_features("Hello".into(), HOOK.into(), 1.into())
        .await;
    let refused = Refusal::of(refused.err().expect("no dictionary"));
    assert_eq!(refused.code, "bad-steering", "{}", refused.message);
    // An answer under way ends, one way or the other.
    let answer = start(&engine, &question("Hello", 50)).expect("an answer");
    answer.next().await.expect("no error");
    engine.dispose();
    let ended = answer.rest().await;
    if let Err(refused) = ended {
        assert!(
            ["device-lost", "gpu-error"].contains(&&refused.code[..]),
            "{refused:?}"
        );
    }
    let refused = start(&engine, &question("Hello", 5))
        .err()
        .expect("disposed");
    assert_eq!(refused.code, "not-loaded");
    let refused = set_steering(&engine, 0, json!([])).expect_err("disposed");
    assert_eq!(refused.code, "not-loaded");
    engine.dispose();
}

#[wasm_bindgen(inline_js = r#"
// Serves `files` (name to bytes) under https://models.test/; a file called NAME!drop breaks off in its
// middle, every time.
export function serve(files) {
    const original = globalThis.fetch;
    globalThis.fetch = async (url, init) => {
        const address = String(url.url ?? url);
        const prefix = "https://models.test/";
        if (!address.startsWith(prefix)) return original(url, init);
        const name = address.slice(prefix.length);
        const drops = files[name + "!drop"];
        const bytes = files[name] ?? drops;
        if (!bytes) return new Response("not here", { status: 404 });
        const range = new Headers(init?.headers ?? url.headers).get("Range");
        const at = range ? Number(/^bytes=(\d+)-/.exec(range)[1]) : 0;
        const middle = Math.floor(bytes.length / 2);
        if (drops && at >= middle) throw new TypeError("Failed to fetch");
        const body = new ReadableStream({
            start(controller) {
                controller.enqueue(bytes.slice(at, drops ? middle : undefined));
                if (!drops) controller.close();
            },
            pull(controller) {
                if (drops) controller.error(new TypeError("network error"));
            },
        });
        const headers = { "Content-Range": `bytes ${at}-${bytes.length - 1}/${bytes.length}` };
        return new Response(body, { status: 206, headers });
    };
    return () => { globalThis.fetch = original; };
}
"#)]
extern "C" {
    fn serve(files: &Object) -> js_sys::Function;
}

#[wasm_bindgen_test]
async fn loads_from_addresses() {
    let mut rng = fresh_rng();
    let files = model_files(&random_model(&mut rng));
    let server = Object::new();
    let put = |folder: &str, files: &Files| {
        for (name, bytes) in files {
            set(
                &server,
                &format!("{folder}/{name}"),
                &Uint8Array::from(&bytes[..]).into(),
            );
        }
    };
    put("good", &files);
    put("good", &dictionary(&mut rng, WIDTH).files("sae/layers.1/"));
    put("headless", &without(&files, "model.safetensors"));
    let mut broken = without(&files, "model.safetensors");
    broken.push((
        "model.safetensors!drop".into(),
        random_model(&mut rng).safetensors(),
    ));
    put("broken", &broken);
    let stop = serve(&server);
    let from = |folder: &str| js(&json!({"model": format!("https://models.test/{folder}")}));

    let refused = load(&from("headless")).await.err().expect("no weights");
    assert_eq!(refused.code, "not-found", "{}", refused.message);
    let refused = load(&from("nowhere")).await.err().expect("no model");
    assert_eq!(refused.code, "not-found", "{}", refused.message);
    let refused = load(&from("broken")).await.err().expect("a break");
    assert_eq!(refused.code, "network", "{}", refused.message);
    let options = from("good");
    set(&options, "sae", &"https://models.test/good/sae/".into());
    let engine = load(&options).await.expect("an engine");
    let info = from_js(engine.info().expect("info").into());
    assert_eq!(info["model"]["name"], "good");
    assert_eq!(info["sae"]["hook"], "layers.1");
    check_order(
        &chat(&engine, &question("Hello", 3))
            .await
            .expect("an answer"),
        3,
    );
    engine.dispose();
    stop.call0(&JsValue::NULL).expect("fetch is put back");
}

/// A worker has no document that could measure the text of a plot.
#[wasm_bindgen_test]
fn plots_are_drawn_in_a_worker() {
    let group = |percent: f64| {
        json!({"what": "refused", "hits": 1, "of": 4, "percent": percent, "low": 1.0, "high": 99.0,
            "incoherent": {"counted": 0, "others": 0},
            "paired": {"pairs": 4, "gained": 1, "lost": 0, "p": 1.0}})
    };
    let arm = |name: &str, series: Option<usize>, value: f64| {
        json!({"arm": name, "series": series, "value": value, "kl": value,
            "groups": {"jailbreaks": group(10.0 * value), "harmless requests": group(value),
                "category theft": group(value)}})
    };
    let curve = [1.0, 2.0].map(|v| json!({"value": v, "harmful": v / 4.0, "benign": 0.0}));
    let result = json!({
        "at": 2.0,
        "arms": [arm("base", None, 0.0), arm("clamp 1", Some(0), 1.0), arm("clamp 2", Some(0), 2.0)],
        "pareto": [0, 2],
        "series": [{"name": "", "target": "7", "operator": "clamp"}],
        "gate": {"roc": [[0.0, 0.5, 1.0], [1.0, 1.0, 0.0]]},
        "strength": {"curve": curve},
    });
    let plots = phi3_steer::lab::plots(&result).expect("plots");
    let names: Vec<&str> = plots.iter().map(|plot| &plot.name[..]).collect();
    let expected = ["dose-0", "pareto", "kl", "bars-category", "strength", "roc"];
    assert_eq!(names, expected);
}
