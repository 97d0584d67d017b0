//! What the names of a dictionary's folders say of its place in the model.

use super::{HookPoint, SaeError};

/// Words that name a place which is not in the residual stream.
const SITES: [&str; 12] = [
    "mlp",
    "mlps",
    "ffn",
    "feedforward",
    "att",
    "attn",
    "attention",
    "transcoder",
    "transcoders",
    "crosscoder",
    "crosscoders",
    "clt",
];

/// The hook point that a path names: its last folder does, or none. An error where it names another place.
pub(super) fn of_path(path: &str) -> Option<Result<HookPoint, SaeError>> {
    let path = path.split(['?', '#']).next()?;
    let folders: Vec<&str> = path.split(['/', '\\']).filter(|f| !f.is_empty()).collect();
    let (last, before) = folders.split_last()?;
    match last.parse::<HookPoint>() {
        Ok(hook) => return Some(Ok(hook)),
        Err(error @ SaeError::Embedding(_)) => return Some(Err(error)),
        Err(_) => {}
    }
    // As in Gemma Scope's `gemma-scope-2b-pt-mlp/layer_5/width_16k/average_l0_70`.
    let layer = before.iter().rposition(|f| f.starts_with("layer_"));
    let from = match layer {
        None if last.starts_with("layer_") => before.len().saturating_sub(1),
        None => before.len(),
        Some(at) => at.saturating_sub(1),
    };
    let other = folders[from..].iter().find(|f| is_other_site(f))?;
    Some(Err(refused(other)))
}

/// The error for a name that is none of a place in the residual stream: it says what it is, if that is known.
pub(super) fn refused(name: &str) -> SaeError {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    // What is inside of an attention layer is not its output.
    let inner = words
        .clone()
        .any(|word| ["z", "q", "k", "v", "pattern"].contains(&word));
    let what = words.find_map(|word| match word {
        "mlp" | "mlps" | "ffn" | "feedforward" => Some("the output of an MLP"),
        "att" | "attn" | "attention" if !inner => Some("the output of an attention layer"),
        _ => None,
    });
    match what {
        Some(what) => SaeError::OtherSite {
            name: name.into(),
            what,
        },
        None => SaeError::BadHook(name.into()),
    }
}

/// Whether a folder's name is that of a place which is not in the residual stream.
fn is_other_site(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words: Vec<&str> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    // A module inside a block, as in "layers.3.self_attn": blocks themselves are hook points.
    let inside = words.windows(3).any(|w| {
        let number = w[1].bytes().all(|b| b.is_ascii_digit());
        matches!(w[0], "layers" | "blocks" | "h") && number && w[2] != "output"
    });
    let module = inside && !words.contains(&"resid");
    let pairs = words.windows(2).any(|w| match w[0] {
        // What a block reads is what the one before it writes, but a name alone is too little to move it.
        "resid" => matches!(w[1], "pre" | "mid"),
        "hook" => w[1] != "resid",
        _ => false,
    });
    module && name.contains('.') || pairs || words.iter().any(|word| SITES.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_places() {
        for (path, layer) in [
            ("zoo/layers.3", Some(3)),
            ("C:\\saes\\blocks.4.hook_resid_post\\", Some(4)),
            ("https://a.b/blocks.4.hook_resid_pre/?x=mlp", Some(3)),
            // The place of a module is its own name, whatever stands before.
            ("my attention tests/model.layers.7", Some(7)),
            ("zoo", None),
            ("l7-test-run-6-1e-06", None),
            (
                "gemma-scope-2b-pt-res/layer_5/width_16k/average_l0_70",
                None,
            ),
            ("mlp/gemma-scope-2b-pt-res/layer_5/width_16k", None),
            ("blocks.3 resid_post", None),
            ("matteo", None),
            ("", None),
        ] {
            let found = of_path(path).map(|found| found.map_err(|e| e.to_string()));
            assert_eq!(found, layer.map(|l| Ok(HookPoint::block(l))), "{path}");
        }
    }

    #[test]
    fn other_places_are_seen() {
        for path in [
            "layers.3.mlp",
            "model.layers.3.self_attn",
            "x/layers.12.attn.o_proj/",
            "blocks.3.hook_mlp_out",
            "blocks.3.attn.hook_z",
            "blocks.3.hook_resid_mid",
            "blocks.0.hook_resid_pre",
            "transformer.h.5.mlp",
            "layers.3.post_attention_layernorm",
            "layers.3.input_layernorm",
            "layer_3_resid_mid",
            "layer_3_resid_pre",
            "layer3-transcoder",
            "gemma-scope-2b-pt-mlp/layer_5/width_16k/average_l0_70",
            "gemma-scope-2b-pt-att/layer_5",
            "layer_5_mlp/width_16k",
            "MLP_out",
        ] {
            assert!(matches!(of_path(path), Some(Err(_))), "{path}");
        }
    }
}
