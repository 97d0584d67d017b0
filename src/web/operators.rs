//! The table of operators for pages.

use wasm_bindgen::prelude::*;

use super::types::{OperatorInfos, to_js};
use crate::steering::{Operator, OperatorInfo};

/// What can be done to the residual stream, and what is said of it.
#[wasm_bindgen]
pub fn operators() -> Result<OperatorInfos, JsValue> {
    let rows: Vec<&OperatorInfo> = Operator::ALL.iter().map(|op| op.row()).collect();
    Ok(to_js(&rows)?.unchecked_into())
}
