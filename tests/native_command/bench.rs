//! `phi3-steer bench`: its figures are there and have the right signs; how large they are, a test does not say.

use serde_json::Value;

use crate::fixture::{nano, succeed};

#[test]
fn the_bench_tells_every_figure() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bench.json");
    let text = succeed(
        &[
            "bench",
            "--model",
            nano("").to_str().unwrap(),
            "--sae",
            nano("sae").to_str().unwrap(),
            "--context",
            "9,5000",
            "--lanes",
            "1,3",
            "--tokens",
            "6",
            "--json",
            out.to_str().unwrap(),
        ],
        "",
    );
    let figures: Vec<Value> = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let all = |figure: &str| -> Vec<&Value> {
        let of = figures.iter().filter(|f| f["figure"] == figure);
        of.collect()
    };
    assert!(number(&figures[0]["openSeconds"]) > 0.0 && number(&figures[0]["loadSeconds"]) > 0.0);
    assert_eq!(all("machine")[0]["blocks"], 6);
    let floor = all("floor")[0];
    assert!(number(&floor["dependentDispatchSeconds"]) > 0.0);
    assert!(number(&floor["readBytesASecond"]) > 0.0);
    // The nano model does not hold 5,000 positions: one context, two numbers of lanes.
    let left_out = all("leftOut");
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    let parts = all("parts");
    assert_eq!(parts.len(), 2);
    for (i, part) in [
        "Embed",
        "Qkv",
        "Attention",
        "Output",
        "GateUp",
        "Down",
        "Head",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(parts[1]["parts"][i]["part"], part);
        let of = |lanes: usize, what: &str| number(&parts[lanes]["parts"][i][what]);
        assert!(of(1, "seconds") > 0.0, "{part}: {}", parts[1]);
        assert!(of(1, "bytes") > 0.0, "{part}: {}", parts[1]);
        // Weights are read once for the three lanes, what is a lane's own thrice.
        let own = ["Embed", "Attention"].contains(&part);
        let times = if own { 3.0 } else { 1.0 };
        assert_eq!(of(1, "bytes"), times * of(0, "bytes"), "{part}");
        let dispatches = if ["Embed", "Head"].contains(&part) {
            1.0
        } else {
            6.0
        };
        assert_eq!(of(1, "dispatches"), dispatches, "{part}");
    }
    let passes = all("pass");
    assert_eq!(passes.len(), 2 * 3);
    let dispatches = |i: usize| passes[i]["dispatches"].as_u64().unwrap();
    // Embedding, five a block, head and sampler; steering reads the dictionary and edits beside that.
    assert_eq!(dispatches(0), 1 + 6 * 5 + 1 + 1);
    assert!(dispatches(1) > dispatches(0) && dispatches(2) > dispatches(0));
    for pass in &passes {
        assert!(number(&pass["passSeconds"]) > 0.0 && number(&pass["prefillTokensASecond"]) > 0.0);
    }
    // A line each; a table of parts has a head, the sum, and what it is of.
    let tables = parts.len() * (7 + 2);
    let told = figures.len() - left_out.len();
    assert_eq!(text.lines().count(), told + tables, "{text}");
}
