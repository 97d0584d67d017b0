//! CSV (RFC 4180), by `csv-core`.

use csv_core::{ReadRecordResult, Reader, WriteResult, Writer};

/// Characters of a record at most.
const MOST_BYTES: usize = 1 << 20;

/// A record and the line that it begins on, counted from 1.
pub(super) struct Record {
    pub line: u64,
    pub fields: Vec<String>,
}

/// The records of `text`; empty lines are none. What is wrong is told with its line.
pub(super) fn read(text: &str) -> Result<Vec<Record>, String> {
    let mut reader = Reader::new();
    let mut rest = text.trim_start_matches('\u{feff}').as_bytes();
    let (mut out, mut ends) = (vec![0; 4096], vec![0; 64]);
    let (mut bytes, mut fields) = (0, 0);
    let mut records = Vec::new();
    let mut line = 1;
    loop {
        let (result, read, wrote, ended) =
            reader.read_record(rest, &mut out[bytes..], &mut ends[fields..]);
        rest = &rest[read..];
        bytes += wrote;
        fields += ended;
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull if out.len() >= MOST_BYTES => {
                return Err(format!(
                    "line {line}: a record of more than {MOST_BYTES} bytes"
                ));
            }
            ReadRecordResult::OutputFull => out.resize(2 * out.len(), 0),
            ReadRecordResult::OutputEndsFull => ends.resize(2 * ends.len(), 0),
            ReadRecordResult::Record => {
                let mut from = 0;
                let texts = ends[..fields].iter().map(|&end| {
                    let field = String::from_utf8_lossy(&out[from..end]).into_owned();
                    from = end;
                    field
                });
                let fields_read = texts.collect();
                records.push(Record {
                    line,
                    fields: fields_read,
                });
                (bytes, fields) = (0, 0);
                line = reader.line();
            }
            ReadRecordResult::End => return Ok(records),
        }
    }
}

/// Adds a record to `out`.
pub(super) fn write<S: AsRef<str>>(out: &mut String, fields: &[S]) {
    let mut writer = Writer::new();
    let mut bytes = Vec::new();
    let mut buffer = [0; 256];
    let mut put = |step: &mut dyn FnMut(&mut [u8]) -> (WriteResult, usize)| {
        loop {
            let (result, wrote) = step(&mut buffer);
            bytes.extend_from_slice(&buffer[..wrote]);
            if result == WriteResult::InputEmpty {
                break;
            }
        }
    };
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            put(&mut |buffer| writer.delimiter(buffer));
        }
        let mut rest = field.as_ref().as_bytes();
        put(&mut |buffer| {
            let (result, read, wrote) = writer.field(rest, buffer);
            rest = &rest[read..];
            (result, wrote)
        });
    }
    put(&mut |buffer| writer.terminator(buffer));
    *out += &String::from_utf8_lossy(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let fields = [
            "plain",
            "",
            "with, comma",
            "say \"no\"",
            "two\nlines",
            "\u{e9}\u{1f600}",
            &"long ".repeat(5000),
        ];
        let mut text = String::from("\u{feff}");
        write(&mut text, &["a", "b"]);
        write(&mut text, &fields);
        text += "\n";
        write(&mut text, &["last"]);
        let records = read(&text).unwrap();
        let all: Vec<&[String]> = records.iter().map(|r| &r.fields[..]).collect();
        assert_eq!(
            all,
            [
                &["a", "b"].map(String::from)[..],
                &fields.map(String::from),
                &["last".to_string()]
            ]
        );
        let lines: Vec<u64> = records.iter().map(|r| r.line).collect();
        assert_eq!(lines[..2], [1, 2]);
        // Two lines in one field, and an empty line.
        assert!(lines[2] == 4 || lines[2] == 5, "{lines:?}");
    }

    #[test]
    fn a_record_has_bounds() {
        assert!(
            read(&"x".repeat(MOST_BYTES + 10))
                .err()
                .unwrap()
                .contains("line 1")
        );
        assert!(read("").unwrap().is_empty());
        assert_eq!(read(&",".repeat(300)).unwrap()[0].fields.len(), 301);
    }
}
