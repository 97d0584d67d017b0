//! The JavaScript API in Chromium: settings that change at any moment, prompts that take their time, and
//! options that are wrong.
#![cfg(target_arch = "wasm32")]

mod support;

use std::rc::Rc;

use phi3_steer::steering::Operator;
use phi3_steer::web::Engine;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use support::checkpoint::{RandomModel, config};
use support::dictionary::RandomDictionary;
use support::engine::*;
use support::fresh_rng;
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

const TOKENIZER: &[u8] = include_bytes!("../models/nano/tokenizer.json");
const TOKENIZER_CONFIG: &[u8] = include_bytes!("../models/nano/tokenizer_config.json");
const WIDTH: usize = 64;
const LATENTS: usize = 100;
const HOOK: &str = "layers.0";

/// `LoadOptions` of a random model with a dictionary after its first block, in full precision, of which
/// engines that answer alike can be made.
fn options(rng: &mut StdRng, positions: usize) -> JsValue {
    let json = config(json!({
        "vocab_size": 3072, "hidden_size": WIDTH, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 96, "max_position_embeddings": positions
    }));
    let mut files = RandomModel::new(rng, json).files();
    files.push(("tokenizer.json".into(), TOKENIZER.into()));
    files.push(("tokenizer_config.json".into(), TOKENIZER_CONFIG.into()));
    let options = js(&json!({"lanes": 2, "quant": "none", "saeHook": HOOK}));
    set(&options, "model", &chosen(&files));
    let sae = RandomDictionary::new(rng, WIDTH, LATENTS, 6);
    set(&options, "sae", &chosen(&sae.files("")));
    options
}

/// Up to two interventions that change what is said.
fn interventions(rng: &mut StdRng) -> Value {
    let first = rng.random_range(0..LATENTS / 2);
    let count = rng.random_range(0..3);
    let one = |i: usize| {
        let op = *["clamp", "add", "scale", "cap"]
            .choose(rng)
            .expect("operators");
        let positions = ["all", "prompt", "generated"];
        let positions = *positions.choose(rng).expect("positions");
        let value: f64 = rng.random_range(-6.0..6.0);
        json!({"hook": HOOK, "feature": first + i, "value": value, "op": op, "positions": positions})
    };
    (0..count).map(one).collect()
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

fn request(lanes: &[Vec<Value>], max_tokens: usize) -> Value {
    let lanes: Vec<Value> = lanes.iter().map(|m| json!({"messages": m})).collect();
    json!({"lanes": lanes, "maxTokens": max_tokens})
}

/// A text of so many short words.
fn words(rng: &mut StdRng, count: usize) -> String {
    let all = ["red", "blue", "one", "two", "sea", "town", "bus", "day"];
    let word = |_| *all.choose(rng).expect("words");
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

#[wasm_bindgen_test]
async fn settings_that_change_at_any_moment_leave_nothing_behind() {
    let mut rng = fresh_rng();
    let options = options(&mut rng, 1024);
    let engine = Rc::new(load(&options).await.expect("an engine"));
    // Messages of the user's alone: a fresh engine makes the same tokens of them.
    let mut conversations = vec![Vec::new(), Vec::new()];
    for turn in 0..3 {
        for messages in &mut conversations {
            messages.push(message("user", &words(&mut rng, 60)));
        }
        // While the prompt is read and the answer written, the steering changes again and again.
        let answer = start(&engine, &request(&conversations, 12)).expect("an answer");
        let mut newest = 0;
        for _ in 0..8 {
            sleep(rng.random_range(0..25)).await;
            let lane = rng.random_range(0..2);
            let setting = set_steering(&engine, lane, interventions(&mut rng));
            let setting = setting.expect("it can be set at any moment");
            assert!(setting > newest, "settings are numbered in order");
            newest = setting;
        }
        let events = answer.rest().await.expect("an answer");
        for lane in 0..2 {
            let settings: Vec<u64> = of_type(&events, "token", lane)
                .iter()
                .map(|t| t["setting"].as_u64().expect("a setting"))
                .collect();
            assert!(
                settings.is_sorted(),
                "turn {turn}, lane {lane}: {settings:?}"
            );
            assert!(settings.iter().all(|s| *s <= newest));
        }
        // Then it rests: the next turn is what a fresh engine answers.
        let fresh = load(&options).await.expect("a fresh engine");
        for messages in &mut conversations {
            messages.push(message("user", &words(&mut rng, 5)));
        }
        let lists = [interventions(&mut rng), interventions(&mut rng)];
        for (lane, list) in lists.iter().enumerate() {
            for engine in [&*engine, &fresh] {
                set_steering(engine, lane, list.clone()).expect("accepted");
            }
        }
        let ask = request(&conversations, 5);
        let got = chat(&engine, &ask).await.expect("an answer");
        let expected = chat(&fresh, &ask).await.expect("an answer");
        for (lane, list) in lists.iter().enumerate() {
            let what = format!("turn {turn}, lane {lane}, {list}");
            assert_eq!(ids(&got, lane), ids(&expected, lane), "{what}");
        }
        fresh.dispose();
    }
    engine.dispose();
}

#[wasm_bindgen_test]
async fn tokens_say_their_setting_and_prompts_their_last_turn() {
    let mut rng = fresh_rng();
    let engine = load(&options(&mut rng, 256)).await.expect("an engine");
    let one = vec![message("user", "Name a colour.")];
    let events = chat(&engine, &request(&[one.clone(), one.clone()], 6)).await;
    let events = events.expect("an answer");
    for lane in 0..2 {
        let prompt = of_type(&events, "prompt", lane)[0];
        let tokens = prompt["tokens"].as_array().expect("tokens");
        assert_eq!(
            (&prompt["first"], &prompt["length"]),
            (&json!(0), &json!(tokens.len()))
        );
        let never = |t: &&Value| t["setting"] == 0 && t["steered"] == false;
        assert!(of_type(&events, "token", lane).iter().all(never));
    }
    let whole = of_type(&events, "prompt", 0)[0]["length"].as_u64();
    let clamp = json!([{"hook": HOOK, "feature": 3, "op": "clamp", "value": 30}]);
    let setting = set_steering(&engine, 1, clamp).expect("accepted");
    let mut longer = one.clone();
    longer.extend([
        message("assistant", "Blue, perhaps."),
        message("user", "Another one?"),
    ]);
    let events = chat(&engine, &request(&[longer, one], 6))
        .await
        .expect("an answer");
    let prompt = of_type(&events, "prompt", 0)[0];
    let tokens = prompt["tokens"].as_array().expect("tokens");
    let first = prompt["first"].as_u64().expect("a position");
    assert!(Some(first) > whole, "{prompt}");
    assert_eq!(prompt["length"], first + tokens.len() as u64);
    assert_eq!(tokens[0]["text"], "<|user|>");
    let heard: String = tokens.iter().filter_map(|t| t["text"].as_str()).collect();
    assert!(
        heard.contains("Another") && !heard.contains("Blue"),
        "{heard}"
    );
    let under = |lane, number: u64, steered: bool| {
        let tokens = of_type(&events, "token", lane);
        let all = |t: &&Value| t["setting"] == number && t["steered"] == steered;
        tokens.iter().all(all)
    };
    assert!(under(0, 0, false) && under(1, setting, true), "{events:?}");
    engine.dispose();
}

#[wasm_bindgen_test]
async fn a_long_prompt_takes_its_time_and_can_be_cancelled() {
    let mut rng = fresh_rng();
    let engine = load(&options(&mut rng, 4096)).await.expect("an engine");
    let lanes = |rng: &mut StdRng, count| vec![vec![message("user", &words(rng, count))]; 2];
    let of = |events: &[Value], name: &str| {
        let stats = events.last().expect("events");
        assert_eq!(stats["type"], "stats");
        stats[name].as_f64().expect("a number")
    };
    // What is first computed pays for the driver's start.
    let ask = request(&lanes(&mut rng, 5), 1);
    chat(&engine, &ask).await.expect("an answer");
    let short = chat(&engine, &request(&lanes(&mut rng, 20), 1)).await;
    let short = of(&short.expect("an answer"), "prefillMs");
    let long = chat(&engine, &request(&lanes(&mut rng, 800), 1)).await;
    let long = of(&long.expect("an answer"), "prefillMs");
    // Forty times the tokens, and attention over all of them.
    assert!(
        long > 4.0 * short,
        "{long} ms, for the short one {short} ms"
    );

    let longest = lanes(&mut rng, 3000);
    let answer = start(&engine, &request(&longest, 5)).expect("an answer");
    sleep(50).await;
    engine.cancel();
    let events = answer.rest().await.expect("an orderly end");
    let read = of(&events, "promptTokens");
    for lane in 0..2 {
        assert_eq!(of_type(&events, "done", lane)[0]["reason"], "cancelled");
        assert!(of_type(&events, "token", lane).is_empty());
    }
    assert!(
        of_type(&events, "prompt", 0).is_empty(),
        "it was read to its end"
    );
    // What was read before stays; there are at least 6,000 tokens.
    assert!(read < 3000.0, "{read} tokens were read after all");
    let after = chat(&engine, &request(&lanes(&mut rng, 5), 3)).await;
    assert_eq!(of_type(&after.expect("an answer"), "done", 1).len(), 1);
    engine.dispose();
}

#[wasm_bindgen_test]
async fn options_that_are_wrong_are_named() {
    let mut rng = fresh_rng();
    let good = options(&mut rng, 256);
    let engine = load(&good).await.expect("an engine");
    let hello = json!({"lanes": [{"messages": [message("user", "Hello")]}], "maxTokens": 2});
    let ask = |name: &str, value: Value| {
        let mut ask = hello.clone();
        ask[name] = value;
        ask
    };
    let sampling = |name: &str, value: Value| ask("sampling", json!({name: value}));
    for (options, field, word) in [
        (ask("maxToken", json!(5)), "maxToken", "maxTokens"),
        (
            ask("max_tokens", json!(5)),
            "max_tokens",
            "\"maxTokens\" is near",
        ),
        (ask("stream", json!(true)), "stream", "there are lanes"),
        (
            ask("maxTokens", json!(1e15)),
            "maxTokens",
            "maxTokens must be a whole number",
        ),
        (ask("maxTokens", json!(1.5)), "maxTokens", "and is 1.5"),
        (ask("maxTokens", json!(-1)), "maxTokens", "from 0 to"),
        (ask("maxTokens", json!("5")), "maxTokens", "and is \"5\""),
        (ask("topFeatures", json!(257)), "topFeatures", "0 to 256"),
        (ask("lanes", json!("all")), "lanes", "a list"),
        (ask("lanes", json!([])), "lanes", "missing"),
        (
            ask("lanes", json!([{"message": []}])),
            "lanes[0].message",
            "messages",
        ),
        (
            ask(
                "lanes",
                json!([{"messages": [message("user", "a"), message("robot", "b")]}]),
            ),
            "lanes[0].messages[1].role",
            "one of \"system\", \"user\", \"assistant\"",
        ),
        (
            ask("lanes", json!([{"messages": [{"role": "user"}]}])),
            "lanes[0].messages[0].content",
            "missing",
        ),
        (
            sampling("temprature", json!(1)),
            "sampling.temprature",
            "temperature",
        ),
        (sampling("top_p", json!(1)), "sampling.top_p", "topP"),
        (
            sampling("temperature", json!(-1)),
            "sampling.temperature",
            "0 to 100",
        ),
        (
            sampling("temperature", json!(1e300)),
            "sampling.temperature",
            "a number",
        ),
        (sampling("topP", json!(0)), "sampling.topP", "above 0"),
        (
            sampling("seed", json!(4_294_967_296u64)),
            "sampling.seed",
            "4294967295",
        ),
        (
            sampling("topK", json!(true)),
            "sampling.topK",
            "and is true",
        ),
        (
            ask("sampling", json!([1])),
            "sampling",
            "must be an object, and is a list",
        ),
        (
            ask("track", json!({"hook": HOOK})),
            "track.feature",
            "missing",
        ),
        (
            ask("track", json!({"hook": HOOK, "feature": 100})),
            "track.feature",
            "0 to 99",
        ),
        (
            ask("track", json!({"hook": "mlp.1", "feature": 1})),
            "track.hook",
            "mlp.1",
        ),
        (
            ask("track", json!({"hook": "layers.1", "feature": 1})),
            "track.hook",
            "layers.0",
        ),
    ] {
        let refused = chat(&engine, &options).await.expect_err("a refusal");
        let Refusal {
            message,
            field: named,
            ..
        } = refused;
        assert_eq!(named.as_deref(), Some(field), "{options}: {message}");
        assert!(message.contains(word), "{options}: {message}");
    }
    let clamp = json!({"hook": HOOK, "feature": 1, "op": "clamp", "value": 1});
    let with = |name: &str, value: Value| {
        let mut one = clamp.clone();
        one[name] = value;
        json!([clamp, one])
    };
    for (list, field, word) in [
        (
            with("features", json!(2)),
            "interventions[1].features",
            "feature",
        ),
        (
            with("op", json!("clmp")),
            "interventions[1].op",
            "\"clamp\"",
        ),
        (
            with("feature", json!(-1)),
            "interventions[1].feature",
            "whole number",
        ),
        (
            with("feature", json!(1e21)),
            "interventions[1].feature",
            "1e21",
        ),
        (
            with("value", json!("8")),
            "interventions[1].value",
            "a number",
        ),
        (
            with("value", json!(1e300)),
            "interventions[1].value",
            "a number",
        ),
        (
            with("includeBos", json!(1)),
            "interventions[1].includeBos",
            "true or false",
        ),
        (
            with("positions", json!("some")),
            "interventions[1].positions",
            "generated",
        ),
        (
            with("hook", json!("layer 3")),
            "interventions[1].hook",
            "layer 3",
        ),
        (
            json!([{"hook": HOOK, "op": "clamp", "value": 1}]),
            "interventions[0].feature",
            "missing",
        ),
        (json!({}), "interventions", "a list"),
        (
            json!([{"hook": HOOK, "feature": 100, "op": "clamp", "value": 1}]),
            "feature",
            "0 to 99",
        ),
    ] {
        let refused = set_steering(&engine, 0, list.clone()).expect_err("a refusal");
        assert_eq!(
            refused.field.as_deref(),
            Some(field),
            "{list}: {}",
            refused.message
        );
        assert!(
            refused.message.contains(word),
            "{list}: {}",
            refused.message
        );
    }
    for lane in [
        js(&json!("one")),
        js(&json!(-1)),
        js(&json!(0.5)),
        JsValue::UNDEFINED,
        2.into(),
    ] {
        let refused = engine.set_steering(lane.clone(), js(&json!([])).unchecked_into());
        let refused = Refusal::of(refused.expect_err("no lane"));
        assert_eq!(
            refused.field.as_deref(),
            Some("lane"),
            "{lane:?}: {}",
            refused.message
        );
    }
    let features = engine.top_features(7.into(), HOOK.into(), 1.into()).await;
    assert_eq!(
        Refusal::of(features.err().expect("no text"))
            .field
            .as_deref(),
        Some("text")
    );
    // All that leaves the engine as it was.
    assert_eq!(
        of_type(&chat(&engine, &hello).await.expect("an answer"), "done", 0).len(),
        1
    );
    engine.dispose();

    for (name, value, field, word) in [
        ("contextlength", json!(64), "contextlength", "contextLength"),
        (
            "context_length",
            json!(64),
            "context_length",
            "contextLength",
        ),
        ("lanes", json!(0), "lanes", "1 to 256"),
        (
            "quant",
            json!("q3"),
            "quant",
            "one of \"auto\", \"q4\", \"q8\", \"none\"",
        ),
        ("saeHook", json!("somewhere"), "saeHook", "somewhere"),
        ("onProgress", json!("yes"), "onProgress", "a function"),
        ("sae", json!(7), "sae", "address"),
    ] {
        let options = js_sys::Object::assign(&js_sys::Object::new(), good.unchecked_ref());
        set(&options, name, &js(&value));
        let refused = load(&options).await.err().expect("a refusal");
        assert_eq!(
            refused.field.as_deref(),
            Some(field),
            "{name}: {}",
            refused.message
        );
        assert!(
            refused.message.contains(word),
            "{name}: {}",
            refused.message
        );
    }
}

#[wasm_bindgen_test]
fn operators_are_told_as_the_table_has_them() {
    let told = phi3_steer::web::operators().expect("a list");
    let told: Vec<Value> = serde_wasm_bindgen::from_value(told.into()).expect("plain data");
    let rows = Operator::ALL.map(|op| serde_json::to_value(op.row()).expect("JSON"));
    assert_eq!(told, rows);
}

fn gpu_bytes(engine: &Engine) -> f64 {
    let memory = from_js(engine.memory().expect("numbers").into());
    memory["gpuBytes"].as_f64().expect("a number")
}

#[wasm_bindgen_test]
async fn a_fork_answers_many_at_once_and_leaves_its_engine_as_it_was() {
    let mut rng = fresh_rng();
    let engine = load(&options(&mut rng, 200)).await.expect("an engine");
    let asked = [message("user", &words(&mut rng, 6))];
    let ask = |lanes: usize| request(&vec![asked.to_vec(); lanes], 9);
    let strength = |value: usize| match value {
        0 => json!([]),
        value => json!([{"hook": HOOK, "feature": 7, "op": "clamp", "value": 6 * value}]),
    };
    // What each strength says, two by two.
    let mut expected = Vec::new();
    for first in [0, 2, 4] {
        for lane in 0..2 {
            set_steering(&engine, lane, strength(first + lane)).expect("set");
        }
        let events = chat(&engine, &ask(2)).await.expect("an answer");
        expected.extend([ids(&events, 0), ids(&events, 1)]);
    }
    let before = gpu_bytes(&engine);
    let fork = engine.fork(6.into()).await.expect("a fork");
    let info = from_js(fork.info().expect("an object").into());
    assert_eq!(info["lanes"], 6);
    assert!(gpu_bytes(&engine) > before);
    for lane in 0..6 {
        set_steering(&fork, lane, strength(lane)).expect("set");
    }
    for lanes in [6, 4] {
        let events = chat(&fork, &ask(lanes)).await.expect("an answer");
        for (lane, expected) in expected.iter().take(lanes).enumerate() {
            assert_eq!(&ids(&events, lane), expected, "lane {lane} of {lanes}");
        }
        assert!(of_type(&events, "done", lanes).is_empty());
    }
    fork.dispose();
    assert_eq!(gpu_bytes(&engine), before, "all of a fork is freed");
    let gone = Refusal::of(fork.fork(1.into()).await.err().expect("it is gone"));
    assert_eq!(gone.code, "not-loaded");
    // The engine goes on where it was.
    let events = chat(&engine, &ask(2)).await.expect("an answer");
    for lane in 0..2 {
        assert_eq!(ids(&events, lane), expected[4 + lane]);
        let prompt = of_type(&events, "prompt", lane)[0].clone();
        assert_eq!(
            prompt["reused"],
            json!(prompt["length"].as_u64().expect("a length") - 1)
        );
    }
    for lanes in [json!(0), json!(257), json!("two")] {
        let refused = Refusal::of(engine.fork(js(&lanes)).await.err().expect("a refusal"));
        assert_eq!(
            refused.field.as_deref(),
            Some("lanes"),
            "{}",
            refused.message
        );
    }
}

#[wasm_bindgen_test]
async fn gates_and_directions_work_through_the_api() {
    let mut rng = fresh_rng();
    let engine = load(&options(&mut rng, 200)).await.expect("an engine");
    let conversation = vec![message("user", &words(&mut rng, 6))];
    let ask = request(&[conversation.clone(), conversation], 9);
    let add = |hook: &str, name: &str, values: &[f32]| {
        let values = js_sys::Float32Array::from(values).into();
        engine
            .add_direction(hook.into(), name.into(), values)
            .map_err(Refusal::of)
    };
    let along: Vec<f32> = (0..WIDTH).map(|_| rng.random_range(-1.0..1.0)).collect();
    add("layers.1", "mine", &along).expect("a direction");
    let push = json!([{"hook": "layers.1", "direction": "mine", "op": "add", "value": 9}]);
    set_steering(&engine, 1, push).expect("set");
    let events = chat(&engine, &ask).await.expect("an answer");
    let (base, always) = (ids(&events, 0), ids(&events, 1));
    assert_ne!(base, always);
    assert!(of_type(&events, "gate", 1).is_empty());

    let set_gate = |lane: JsValue, gate: Value| {
        engine
            .set_gate(lane, js(&gate).unchecked_into())
            .map_err(Refusal::of)
    };
    let gate = |bias: f64| json!({"hook": HOOK, "weights": vec![0.0; WIDTH], "bias": bias, "threshold": 0.5});
    for (bias, expected, steered) in [(-20.0, &base, false), (20.0, &always, true)] {
        set_gate(1.into(), gate(bias)).expect("a gate");
        let events = chat(&engine, &ask).await.expect("an answer");
        assert_eq!(&ids(&events, 1), expected);
        assert_eq!(ids(&events, 0), base);
        let at = |kind: &str| {
            events
                .iter()
                .position(|e| e["type"] == kind && e["lane"] == 1)
        };
        assert!(at("gate").expect("a decision") < at("prompt").expect("a prompt"));
        let told = of_type(&events, "gate", 1);
        assert_eq!((told.len(), &told[0]["steered"]), (1, &json!(steered)));
        assert_eq!(told[0]["threshold"], 0.5);
        let score = told[0]["score"].as_f64().expect("a number");
        assert!((score - 1.0 / (1.0 + (-bias).exp())).abs() < 1e-6);
        let edited = |e: &&Value| e["steered"] == true;
        assert_eq!(
            of_type(&events, "token", 1).into_iter().any(|e| edited(&e)),
            steered
        );
    }
    set_gate(1.into(), Value::Null).expect("no gate");
    let events = chat(&engine, &ask).await.expect("an answer");
    assert_eq!(ids(&events, 1), always);
    assert!(of_type(&events, "gate", 1).is_empty());

    let with = |name: &str, value: Value| {
        let mut gate = gate(0.0);
        gate[name] = value;
        gate
    };
    for (gate, field) in [
        (with("weights", json!([1])), "gate.weights"),
        (with("weights", json!(["a"])), "gate.weights[0]"),
        (with("bias", Value::Null), "gate.bias"),
        (with("threshold", json!("high")), "gate.threshold"),
        (with("hook", json!("layers.9")), "gate.hook"),
        (with("hook", json!("mlp.1")), "gate.hook"),
        (with("feature", json!(3)), "gate.feature"),
        (with("treshold", json!(3)), "gate.treshold"),
        (
            json!({"hook": HOOK, "feature": 100, "threshold": 1}),
            "gate.feature",
        ),
        (json!(5), "gate"),
    ] {
        let refused = set_gate(1.into(), gate.clone()).expect_err("a refusal");
        assert_eq!(
            refused.field.as_deref(),
            Some(field),
            "{gate}: {}",
            refused.message
        );
    }
    let refused = set_gate(2.into(), gate(1.0)).expect_err("no such lane");
    assert_eq!(refused.field.as_deref(), Some("lane"));
    for (hook, name, values, field) in [
        ("layers.9", "a", &along[..], "hook"),
        ("layers.1", "a:b", &along[..], "name"),
        ("layers.1", "a", &along[1..], "values"),
    ] {
        let refused = add(hook, name, values).expect_err("a refusal");
        assert_eq!(refused.field.as_deref(), Some(field), "{}", refused.message);
    }
    for (one, field) in [
        (
            json!({"hook": "layers.1", "direction": "other", "op": "add", "value": 1}),
            "direction",
        ),
        (
            json!({"hook": "layers.1", "direction": "mine", "op": "scale", "value": 1}),
            "interventions[0].direction",
        ),
        (
            json!({"hook": "layers.1", "direction": "mine", "feature": 1, "op": "add", "value": 1}),
            "interventions[0].direction",
        ),
    ] {
        let refused = set_steering(&engine, 1, json!([one])).expect_err("a refusal");
        assert_eq!(
            refused.field.as_deref(),
            Some(field),
            "{one}: {}",
            refused.message
        );
    }
}
