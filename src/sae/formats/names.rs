//! The files that each format consists of. The page's store has the same table in www/store/forms.js.

/// What describes a dictionary of sparsify, SAELens and saex.
pub const CONFIG: &str = "cfg.json";
/// What describes one of Llama Scope.
pub const HYPERPARAMETERS: &str = "hyperparams.json";
/// What may describe one of Gemma Scope 2.
pub const GEMMA_CONFIG: &str = "config.json";

/// The weights of sparsify, beside [`CONFIG`].
pub const SPARSIFY: &str = "sae.safetensors";
/// The weights of SAELens and saex, beside [`CONFIG`].
pub const SAELENS: &str = "sae_weights.safetensors";
/// The weights of Gemma Scope.
pub const GEMMA_SCOPE: &str = "params.npz";
/// The weights of Gemma Scope 2.
pub const GEMMA_SCOPE_2: &str = "params.safetensors";
/// What Gemma Scope 2 publishes of its latents, which may be left out: it is large.
pub const EXAMPLES: &str = "examples.safetensors";
/// The weights of Llama Scope, beside [`HYPERPARAMETERS`].
pub const LLAMA_SCOPE: &str = "checkpoints/final.safetensors";

/// All weights, each with the description that it cannot do without.
pub const FORMS: [(&str, Option<&str>); 5] = [
    (SPARSIFY, Some(CONFIG)),
    (SAELENS, Some(CONFIG)),
    (GEMMA_SCOPE, None),
    (GEMMA_SCOPE_2, None),
    (LLAMA_SCOPE, Some(HYPERPARAMETERS)),
];

/// Whether a file's name is one by which a dictionary's folder is known: the description, or the weights of
/// a format without one.
pub fn marks_folder(name: &str) -> bool {
    FORMS
        .into_iter()
        .any(|(weights, needs)| needs.unwrap_or(weights) == name)
}

/// How many folders above a file of this name its dictionary's folder is, 1 for the one it lies in; `None`
/// for a file of no dictionary.
pub fn levels_up(name: &str) -> Option<usize> {
    let path = paths().find(|path| last(path) == name)?;
    Some(path.split('/').count())
}

/// Where the files of all formats are in a dictionary's folder.
fn paths() -> impl Iterator<Item = &'static str> {
    let files = |(weights, needs): (_, Option<_>)| needs.into_iter().chain([weights]);
    FORMS.into_iter().flat_map(files)
}

/// A path's last part.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The names of all files that dictionaries are read from, without the folders that some lie in.
pub fn file_names() -> impl Iterator<Item = &'static str> {
    paths().chain([GEMMA_CONFIG, EXAMPLES]).map(last)
}

/// A safetensors file's name without its end, as sharded files begin.
pub fn stem(name: &str) -> &str {
    name.strip_suffix(".safetensors").unwrap_or(name)
}

/// "cfg.json with sae.safetensors, …": what a folder may hold to be a dictionary.
pub fn listed() -> String {
    let form = |(weights, needs): (&str, Option<&str>)| match needs {
        Some(needs) => format!("{needs} with {weights}"),
        None => weights.to_owned(),
    };
    let all: Vec<String> = FORMS.into_iter().map(form).collect();
    let (last, before) = all
        .split_last()
        .map_or(("", &[][..]), |(l, b)| (l.as_str(), b));
    format!("{}, or {last}", before.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_the_page_has_the_same_table() {
        let store = std::fs::read_to_string("www/store/forms.js").unwrap();
        let sparsify = format!(
            "export const SPARSIFY = {{ weights: \"{SPARSIFY}\", needs: [\"{CONFIG}\"] }};"
        );
        assert!(store.contains(&sparsify), "{sparsify}");
        let table = store.split("export const DICTIONARIES = [").nth(1).unwrap();
        let table = table.split("];").next().unwrap();
        let rows: Vec<&str> = table
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(rows.len(), FORMS.len(), "{rows:?}");
        for ((weights, needs), row) in FORMS.into_iter().zip(rows).skip(1) {
            let needs = needs.map_or(String::new(), |name| format!("\"{name}\""));
            assert_eq!(
                row,
                format!("{{ weights: \"{weights}\", needs: [{needs}] }},")
            );
        }
        for (weights, needs) in FORMS {
            for path in needs.into_iter().chain([weights]) {
                let name = path.rsplit('/').next().unwrap_or(path);
                assert_eq!(levels_up(name), Some(path.split('/').count()), "{path}");
            }
        }
        assert_eq!(levels_up("cfg.json"), Some(1));
        assert_eq!(levels_up("final.safetensors"), Some(2));
        assert_eq!(levels_up("model.safetensors"), None);
        assert!(
            listed().contains("params.npz, params.safetensors, or hyperparams.json with"),
            "{}",
            listed()
        );
    }
}
