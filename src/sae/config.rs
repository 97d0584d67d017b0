//! sparsify's `cfg.json`.

use serde::Deserialize;

use super::SaeError;

/// Latents of a dictionary at most.
pub const MAX_LATENTS: usize = 131_072;
/// Active latents of a token at most.
pub const MAX_K: usize = 256;

/// What a dictionary's `cfg.json` says of its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DictionaryConfig {
    /// Elements of the vectors that it reads.
    pub width: usize,
    /// Latents.
    pub latents: usize,
    /// Active latents of a token at most.
    pub k: usize,
}

/// `cfg.json` as sparsify and its predecessor `sae` write it. `normalize_decoder` and `multi_topk`
/// concern training alone: the first keeps decoder rows at norm 1 in the file, the second is a loss.
#[derive(Deserialize)]
struct Raw {
    d_in: usize,
    k: usize,
    #[serde(default)]
    num_latents: usize,
    #[serde(default)]
    expansion_factor: usize,
    activation: Option<String>,
    #[serde(default)]
    signed: bool,
    #[serde(default)]
    skip_connection: bool,
    #[serde(default)]
    transcode: bool,
}

impl DictionaryConfig {
    /// Parses and checks `json`, the contents of `file`.
    pub fn from_json(file: &str, json: &[u8]) -> Result<Self, SaeError> {
        let fail = |reason: String| SaeError::Config {
            file: file.into(),
            reason,
        };
        let refuse = |what: &str| SaeError::Unsupported {
            file: file.into(),
            what: what.into(),
        };
        let raw: Raw = serde_json::from_slice(json).map_err(|e| {
            fail(format!(
                "{e}: it should be the cfg.json that sparsify wrote beside sae.safetensors"
            ))
        })?;
        match raw.activation.as_deref() {
            None | Some("topk") => {}
            Some(other) => return Err(refuse(&format!("its activation is \"{other}\""))),
        }
        if raw.signed {
            return Err(refuse("it keeps negative activations (\"signed\")"));
        }
        if raw.transcode {
            return Err(refuse("it is a transcoder (\"transcode\")"));
        }
        if raw.skip_connection {
            return Err(refuse("it has a skip connection (\"skip_connection\")"));
        }
        if raw.d_in == 0 || raw.d_in > 1 << 16 || !raw.d_in.is_multiple_of(4) {
            return Err(fail(format!(
                "d_in is {}; a multiple of 4 up to {} is needed",
                raw.d_in,
                1 << 16
            )));
        }
        let latents = match raw.num_latents {
            0 => raw.d_in.saturating_mul(raw.expansion_factor),
            given => given,
        };
        if latents == 0 || latents > MAX_LATENTS {
            return Err(fail(format!(
                "{latents} latents (num_latents, or else d_in * expansion_factor); 1 to {MAX_LATENTS} are supported"
            )));
        }
        if raw.k == 0 || raw.k > MAX_K.min(latents) {
            return Err(fail(format!(
                "k is {}; 1 to {} is supported here",
                raw.k,
                MAX_K.min(latents)
            )));
        }
        Ok(Self {
            width: raw.d_in,
            latents,
            k: raw.k,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> serde_json::Value {
        json!({
            "activation": "topk", "expansion_factor": 8, "normalize_decoder": true, "num_latents": 0,
            "k": 32, "multi_topk": false, "skip_connection": false, "transcode": false, "d_in": 3072
        })
    }

    fn parse(json: &serde_json::Value) -> Result<DictionaryConfig, SaeError> {
        DictionaryConfig::from_json("cfg.json", json.to_string().as_bytes())
    }

    #[test]
    fn no_count_of_latents_means_width_times_expansion() {
        let c = parse(&base()).unwrap();
        assert_eq!((c.width, c.latents, c.k), (3072, 24_576, 32));
        let mut named = base();
        named["num_latents"] = json!(1000);
        assert_eq!(parse(&named).unwrap().latents, 1000);
        let old = json!({"d_in": 64, "k": 4, "expansion_factor": 2, "signed": false});
        assert_eq!(parse(&old).unwrap().latents, 128);
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        for (key, value, word) in [
            ("activation", json!("groupmax"), "groupmax"),
            ("signed", json!(true), "signed"),
            ("transcode", json!(true), "transcode"),
            ("skip_connection", json!(true), "skip_connection"),
            ("d_in", json!(30), "d_in"),
            ("d_in", json!(0), "d_in"),
            ("k", json!(0), "k is 0"),
            ("k", json!(257), "k is 257"),
            ("num_latents", json!(31), "k is 32"),
            ("num_latents", json!(1u64 << 40), "latents"),
            ("expansion_factor", json!(u64::MAX), "latents"),
        ] {
            let mut c = base();
            c[key] = value;
            let message = parse(&c).unwrap_err().to_string();
            assert!(message.contains(word), "{key}: {message}");
        }
        for bad in [
            &b"{"[..],
            b"[]",
            b"{\"d_in\": 64}",
            b"{\"d_in\": -1, \"k\": 3}",
        ] {
            let message = DictionaryConfig::from_json("x/cfg.json", bad)
                .unwrap_err()
                .to_string();
            assert!(message.starts_with("x/cfg.json:"), "{message}");
        }
    }
}
