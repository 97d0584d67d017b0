//! Addresses of files.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen::prelude::*;

/// The address without what follows its path, and its query.
fn split(address: &str) -> (&str, &str) {
    let address = address.split('#').next().unwrap_or(address);
    let at = address.find('?').unwrap_or(address.len());
    address.split_at(at)
}

/// The folder at an address, with a slash at its end and without a query.
pub(super) fn folder(address: &str) -> String {
    format!("{}/", split(address).0.trim_end_matches('/'))
}

/// The address of the file called `name` in the folder at `address`, whose query stays.
pub(super) fn under(address: &str, name: &str) -> String {
    format!("{}{name}{}", folder(address), split(address).1)
}

/// The address of the file called `name` beside the one at `address`, whose query stays.
pub(super) fn beside(address: &str, name: &str) -> String {
    let (path, query) = split(address);
    let folder = path.rfind('/').map_or("", |slash| &path[..=slash]);
    format!("{folder}{name}{query}")
}

/// The name of the GGUF file at an address, if it is the address of one.
pub(super) fn gguf_name(address: &str) -> Option<&str> {
    let name = split(address).0.rsplit('/').next()?;
    name.to_ascii_lowercase().ends_with(".gguf").then_some(name)
}

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = URL)]
    type Address;
    #[wasm_bindgen(constructor, catch, js_class = "URL")]
    fn new(address: &str, base: &str) -> Result<Address, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn href(this: &Address) -> String;
    #[wasm_bindgen(method, getter)]
    fn origin(this: &Address) -> String;
}

/// The address of the page, or of the worker's script.
#[cfg(target_arch = "wasm32")]
fn here() -> String {
    let location = js_sys::Reflect::get(&js_sys::global(), &"location".into());
    let href = location.and_then(|location| js_sys::Reflect::get(&location, &"href".into()));
    href.ok()
        .and_then(|href| href.as_string())
        .unwrap_or_default()
}

/// What `fetch` makes of an address: a relative one counts from the page, or the worker's script. As it is
/// where that is none.
#[cfg(target_arch = "wasm32")]
pub(super) fn resolved(address: &str) -> String {
    Address::new(address, &here()).map_or_else(|_| address.into(), |url| url.href())
}

/// Whether a page may read what is at an address without the server's leave.
#[cfg(target_arch = "wasm32")]
pub(super) fn is_own(address: &str) -> bool {
    let origin = |address: &str| Address::new(address, &here()).ok().map(|url| url.origin());
    origin(address).is_some_and(|there| Some(there) == origin(&here()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_gguf_file_is_one() {
        for (url, name) in [
            ("models/phi3.gguf", Some("phi3.gguf")),
            (
                "https://a.b/c/Phi-3-Q4.GGUF?download=true#x",
                Some("Phi-3-Q4.GGUF"),
            ),
            ("https://a.b/x.gguf/", None),
            ("models/gguf", None),
            ("models/x?file=y.gguf", None),
            ("models/x#y.gguf", None),
        ] {
            assert_eq!(gguf_name(url), name, "{url}");
        }
    }

    #[test]
    fn names_are_put_where_files_are() {
        for (address, there) in [
            ("models/nano", "models/nano/config.json"),
            ("https://a.b/nano//", "https://a.b/nano/config.json"),
            (
                "https://a.b/nano/?token=x/y#z?w",
                "https://a.b/nano/config.json?token=x/y",
            ),
        ] {
            assert_eq!(under(address, "config.json"), there);
        }
        for (address, there) in [
            ("x.gguf", "y.gguf"),
            ("https://a.b/c/x.gguf?a=/b", "https://a.b/c/y.gguf?a=/b"),
        ] {
            assert_eq!(beside(address, "y.gguf"), there);
        }
    }
}
