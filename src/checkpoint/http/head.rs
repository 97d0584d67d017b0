//! What the head of an answer says: the same readings as the page's downloads have (`www/store/connection.js`,
//! `www/store/retry.js`), tested on the same texts.

/// Milliseconds without a byte before a request is given up.
pub(super) const STALL: i32 = 30_000;

/// Digits of a number at most: what a double counts exactly.
const DIGITS: usize = 15;

/// A number of digits alone.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= DIGITS;
    let digits = digits && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// What `Content-Range: bytes 0-9/100` says: the first byte, the byte after the last, and the file's length
/// if it is known.
pub(super) fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, range) = value.trim().split_once(char::is_whitespace)?;
    let (range, total) = range.trim_start().split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last) = (number(start)?, number(last)?);
    let total = match total {
        "*" => None,
        total => Some(number(total)?),
    };
    let fits = last >= start && total.is_none_or(|total| last < total);
    let fits = fits && unit.eq_ignore_ascii_case("bytes");
    fits.then_some((start, last + 1, total))
}

/// Milliseconds of a `Retry-After` header, which holds seconds or a date, at `now`; `date` reads one, in
/// milliseconds since 1970, or gives no number.
pub(super) fn retry_after(text: &str, now: f64, date: impl Fn(&str) -> f64) -> Option<f64> {
    let text = text.trim();
    if let Some(seconds) = number(text) {
        return Some(seconds as f64 * 1000.0);
    }
    let date = Some(text).filter(|text| !text.is_empty()).map(date)?;
    (!date.is_nan()).then(|| (date - now).max(0.0))
}

/// Whether a `Content-Encoding` says that the bytes are not the file's own.
pub(super) fn is_encoded(encoding: &str) -> bool {
    let encoding = encoding.trim();
    !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")
}

/// Whether a `Content-Type` is that of a web page.
pub(super) fn is_page(kind: &str) -> bool {
    let kind = kind.trim_start().to_ascii_lowercase();
    kind.starts_with("text/html") || kind.starts_with("application/xhtml")
}

/// Whether the first bytes are those of a web page.
pub(super) fn begins_as_page(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    start.trim_ascii_start().first().is_none_or(|b| *b == b'<')
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn heads_are_read_as_the_store_reads_them() {
        let rules: Value =
            serde_json::from_str(include_str!("../../../tests/support/requests.json")).unwrap();
        let cases = |name: &str| -> Vec<(String, Value)> {
            let cases: Vec<(String, Value)> = serde_json::from_value(rules[name].clone()).unwrap();
            assert!(cases.len() > 4, "{name}");
            cases
        };
        assert_eq!(rules["stall"], STALL);
        for (text, range) in cases("contentRange") {
            let read = serde_json::to_value(content_range(&text)).unwrap();
            assert_eq!(read, range, "{text}");
        }
        let now = rules["now"].as_f64().unwrap();
        // The two dates of the cases.
        let date = |text: &str| match text {
            "Wed, 21 Oct 2015 07:28:00 GMT" => 1_445_412_480_000.0,
            "Wed, 21 Oct 2015 07:27:00 GMT" => 1_445_412_420_000.0,
            _ => f64::NAN,
        };
        for (text, wait) in cases("retryAfter") {
            assert_eq!(retry_after(&text, now, date), wait.as_f64(), "{text}");
        }
        for (text, encoded) in cases("encoded") {
            assert_eq!(is_encoded(&text), encoded == true, "{text}");
        }
        for (text, page) in cases("page") {
            assert_eq!(is_page(&text), page == true, "{text}");
        }
        for (text, page) in cases("beginsAsPage") {
            assert_eq!(begins_as_page(text.as_bytes()), page == true, "{text}");
        }
    }
}
