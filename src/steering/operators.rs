//! The operators, each said once: the shader, the parser, JSON and the page follow this table.

use std::fmt::{self, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// All that is said of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorInfo {
    /// Its name, as in JSON and on the command line.
    pub name: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// What it does, in a sentence.
    pub words: &'static str,
    /// What it does to a token's feature that was just named; `{value}` stands for the value.
    pub deed: &'static str,
    /// What its value is; none if it has none.
    pub value: Option<&'static str>,
    /// Whether its value is a factor, which is the same for features of whatever size.
    pub factor: bool,
    /// Whether it needs a feature's activation, so that the residual stream is encoded.
    pub activation: bool,
    /// Whether it puts the dictionary's reconstruction in place of h.
    pub reconstruction: bool,
    /// Whether it is about a feature.
    pub feature: bool,
    /// Whether it can be about a direction that is no feature's.
    pub direction: bool,
    /// The code in the steering table.
    #[serde(skip)]
    code: u32,
}

macro_rules! operators {
    ($($(#[$doc:meta])* $op:ident = $code:literal $row:tt)*) => {
        /// What is done to the residual stream h, given the activation f of the feature and its decoder
        /// row d, or a direction d that is no feature's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operator {
            $($(#[$doc])* $op,)*
        }

        impl Operator {
            /// All of them.
            pub const ALL: [Operator; [$($code),*].len()] = [$(Operator::$op),*];

            /// What is said of it.
            pub fn row(self) -> &'static OperatorInfo {
                match self {
                    $(Operator::$op => const { &operators!(@row $code $row) },)*
                }
            }
        }
    };
    (@row $code:literal { $($field:ident: $value:expr,)* }) => {
        OperatorInfo { $($field: $value,)* code: $code }
    };
}

operators! {
    /// h + (value - f) d: the activation becomes `value`, what the dictionary misses of h stays. Along a
    /// direction, h + (value - p) d/|d|: its component p along d/|d| becomes `value`.
    Clamp = 1 {
        name: "clamp",
        label: "clamp",
        words: "The feature is held at a strength, however strong it was; all else stays.",
        deed: "held at {value}",
        value: Some("the feature's activation"),
        factor: false,
        activation: true,
        reconstruction: false,
        feature: true,
        direction: true,
    }
    /// As `Clamp`, on the dictionary's reconstruction: what it misses of h is dropped.
    ClampReplace = 5 {
        name: "clamp_replace",
        label: "clamp, error dropped",
        words: "The feature is held at a strength, and what the dictionary cannot express is dropped.",
        deed: "held at {value}, and the dictionary's error dropped",
        value: Some("the feature's activation"),
        factor: false,
        activation: true,
        reconstruction: true,
        feature: true,
        direction: false,
    }
    /// h + value d.
    Add = 2 {
        name: "add",
        label: "add",
        words: "The direction is added, so many times, to what is there.",
        deed: "{value} of its direction added",
        value: Some("how much of the direction"),
        factor: false,
        activation: false,
        reconstruction: false,
        feature: true,
        direction: true,
    }
    /// h + (value - 1) f d: the activation is multiplied; 0 ablates.
    Scale = 3 {
        name: "scale",
        label: "scale",
        words: "The feature is multiplied: 0 takes it out, 2 doubles it, and where it is silent it stays so.",
        deed: "multiplied by {value}",
        value: Some("a factor"),
        factor: true,
        activation: true,
        reconstruction: false,
        feature: true,
        direction: false,
    }
    /// h without its component along d.
    ProjectOut = 4 {
        name: "project_out",
        label: "project out",
        words: "All that points along the direction is taken out.",
        deed: "its direction taken out",
        value: None,
        factor: false,
        activation: false,
        reconstruction: false,
        feature: true,
        direction: true,
    }
    /// h + (value - p) d/|d| where p, its component along d/|d|, is above `value`; else h. In the residual's
    /// units.
    Cap = 7 {
        name: "cap",
        label: "cap",
        words: "What points along the direction is cut down to a bound where it is above it.",
        deed: "its direction held at {value} at most",
        value: Some("the largest component along the direction"),
        factor: false,
        activation: false,
        reconstruction: false,
        feature: true,
        direction: true,
    }
    /// h + (value - 1) p d/|d|: its component p along d/|d| is multiplied; what has none stays as it is.
    Amplify = 8 {
        name: "amplify",
        label: "amplify",
        words: "What points along the direction is multiplied: what does not stays as it is.",
        deed: "what points along its direction multiplied by {value}",
        value: Some("a factor of the component along the direction"),
        factor: true,
        activation: false,
        reconstruction: false,
        feature: true,
        direction: true,
    }
    /// h becomes its reconstruction, no feature changed: the control for `ClampReplace`.
    Reconstruct = 6 {
        name: "reconstruct",
        label: "reconstruct",
        words: "The dictionary's reconstruction takes the place of what is there, no feature changed: a control.",
        deed: "replaced by the dictionary's reconstruction",
        value: None,
        factor: false,
        activation: false,
        reconstruction: true,
        feature: false,
        direction: false,
    }
}

impl Operator {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether it has a value.
    pub fn takes_value(self) -> bool {
        self.row().value.is_some()
    }

    /// The operator called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The names of those that can be about a direction, for messages.
    pub(super) fn along() -> String {
        let along = Self::ALL.into_iter().filter(|op| op.row().direction);
        along.map(Self::name).collect::<Vec<_>>().join(", ")
    }

    /// The names of those that are about a feature and need neither its activation nor the reconstruction, for
    /// messages.
    pub(super) fn unmeasured() -> String {
        let plain = |row: &OperatorInfo| row.feature && !row.activation && !row.reconstruction;
        let own = Self::ALL.into_iter().filter(|op| plain(op.row()));
        own.map(Self::name).collect::<Vec<_>>().join(", ")
    }

    /// Its code in the steering table.
    pub(super) fn code(self) -> u32 {
        self.row().code
    }

    /// What the kernel is given: constants, `OP_` and the name in capitals, where 0 is an empty entry, and
    /// the functions `measures` and `rebuilds`, whether an operator needs the feature's activation, and the
    /// reconstruction.
    pub(super) fn shader() -> String {
        let mut text = String::from("const OP_EMPTY: u32 = 0u;\n");
        let constant = |op: Self| format!("OP_{}", op.name().to_uppercase());
        // Writing to a string cannot fail.
        for op in Self::ALL {
            let _ = writeln!(text, "const {}: u32 = {}u;", constant(op), op.code());
        }
        let mut function = |name: &str, holds: fn(&OperatorInfo) -> bool| {
            let own = Self::ALL.into_iter().filter(|op| holds(op.row()));
            let any: Vec<String> = own.map(|op| format!("op == {}", constant(op))).collect();
            let any = any.join(" || ");
            let _ = writeln!(text, "fn {name}(op: u32) -> bool {{ return {any}; }}");
        };
        function("measures", |row| row.activation);
        function("rebuilds", |row| row.reconstruction);
        text
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Operator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Operator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| {
            let names = Self::names();
            serde::de::Error::custom(format!("\"{name}\" is no operator ({names})"))
        })
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_each_ones_own() {
        for (i, one) in Operator::ALL.into_iter().enumerate() {
            assert_ne!(one.code(), 0);
            for other in &Operator::ALL[..i] {
                assert_ne!(one.code(), other.code(), "{one} and {other}");
                assert_ne!(one.name(), other.name());
                assert_ne!(one.row().label, other.row().label);
            }
            assert_eq!(Operator::named(one.name()), Some(one));
            let json = serde_json::to_string(&one).unwrap();
            assert_eq!(json, format!("\"{one}\""));
            assert_eq!(serde_json::from_str::<Operator>(&json).unwrap(), one);
            let row = one.row();
            assert_eq!(row.value.is_some(), row.deed.contains("{value}"), "{one}");
            assert!(row.words.ends_with('.'), "{one}");
        }
        let unknown = serde_json::from_str::<Operator>("\"crush\"").unwrap_err();
        assert!(unknown.to_string().contains("clamp_replace, add"));
    }

    /// Where the page and its types say operators, they say this table.
    #[test]
    fn the_page_says_what_the_table_says() {
        let union = Operator::ALL.map(|op| format!("\"{op}\"")).join(" | ");
        let types = std::fs::read_to_string(TYPES).unwrap();
        let own = |line: &str| match line.starts_with("export type Operator = ") {
            true => format!("export type Operator = {union};\n"),
            false => format!("{line}\n"),
        };
        write_again(TYPES, &types.lines().map(own).collect::<String>());

        let rows: Vec<String> = Operator::ALL
            .iter()
            .map(|op| format!("  {},\n", serde_json::to_string(op.row()).unwrap()))
            .collect();
        let module = format!(
            "// What can be done to a feature or a direction. Written by the test of src/steering/operators.rs, whose table it is,\n\
             // with WRITE_OPERATORS=1.\n\n\
             /** @import {{ OperatorInfo }} from \"./types.d.ts\" */\n\n\
             /** @type {{readonly OperatorInfo[]}} */\n\
             export const OPERATORS = [\n{}];\n",
            rows.concat()
        );
        write_again(
            concat!(env!("CARGO_MANIFEST_DIR"), "/www/operators.js"),
            &module,
        );
    }

    const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/types.d.ts");

    /// The file says `text`; with WRITE_OPERATORS=1 it does from now on.
    fn write_again(path: &str, text: &str) {
        if std::env::var_os("WRITE_OPERATORS").is_some() {
            std::fs::write(path, text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            written, text,
            "{path}: write it again with WRITE_OPERATORS=1"
        );
    }
}
