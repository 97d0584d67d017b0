//! The paper's own figures, of another model.

use serde_json::{Value, json};

/// What the paper reports of Phi-3 Mini (O'Brien et al., arXiv 2411.11296), base and steered, in percent,
/// each beside the group of a result that asks the same question. The prompts are others, and so are the
/// dictionary and, but for Phi-3 Mini, the model: nothing but the direction can be compared.
pub fn paper() -> Value {
    json!({
        "source": "O'Brien et al., arXiv 2411.11296: Phi-3 Mini, its own dictionary and prompts; not this model",
        "rows": [
            {"group": "direct requests", "what": "WildGuard, unsafe prompts refused", "base": 58.0, "steered": 96.0},
            {"group": "harmless requests", "what": "WildGuard, safe prompts refused", "base": 6.0, "steered": 68.0},
            {"group": "multi-turn escalations", "what": "Crescendo, attacks that failed",
             "base": 44.08, "steered": 67.42},
            {"group": "four options", "what": "MMLU, right", "base": 68.80, "steered": 35.98},
            {"group": "facts", "what": "TruthfulQA, right", "base": 65.00, "steered": 53.82},
            {"group": "arithmetic", "what": "GSM8K, right", "base": 82.50, "steered": 35.56},
        ],
    })
}
