//! Names of the files that one model is split into: `NAME-00001-of-00003.gguf`, as llama.cpp's
//! `llama-gguf-split` writes them, or `.safetensors`, as Transformers does.

/// The most files of a model.
const MAX_PARTS: usize = 1024;

/// Digits of a number.
const DIGITS: usize = 5;

/// What the name of one of several files says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// What stands before the numbers.
    pub stem: &'a str,
    /// Its number, from 1.
    pub number: usize,
    /// The files of the model.
    pub count: usize,
    /// What stands after the numbers, as it is written.
    end: &'a str,
}

impl<'a> Split<'a> {
    /// Reads a name; `None` for that of a whole model.
    pub fn of(name: &'a str) -> Option<Self> {
        let (rest, end) = name.split_at(name.rfind('.')?);
        let number = |digits: &str| {
            let plain = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse::<usize>().ok().filter(|_| plain)
        };
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, first) = rest.rsplit_once('-')?;
        let (number, count) = (number(first)?, number(count)?);
        let ends = [".gguf", ".safetensors"];
        let fits = ends.iter().any(|known| end.eq_ignore_ascii_case(known))
            && (1..=count).contains(&number)
            && count <= MAX_PARTS;
        fits.then_some(Self {
            stem,
            number,
            count,
            end,
        })
    }

    /// The names of all files of the model, in order.
    pub fn names(&self) -> Vec<String> {
        let Self {
            stem, count, end, ..
        } = self;
        let name = |number| format!("{stem}-{number:05}-of-{count:05}{end}");
        (1..=*count).map(name).collect()
    }

    /// The names of the files of the model that the file called `name` belongs to.
    pub fn names_with(name: &str) -> Vec<String> {
        Split::of(name).map_or_else(|| vec![name.into()], |split| split.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_understood() {
        let split = Split::of("phi-3-00002-of-00003.GGUF").unwrap();
        assert_eq!((split.stem, split.number, split.count), ("phi-3", 2, 3));
        assert_eq!(
            split.names(),
            [
                "phi-3-00001-of-00003.GGUF",
                "phi-3-00002-of-00003.GGUF",
                "phi-3-00003-of-00003.GGUF"
            ]
        );
        let split = Split::of("sub/model-00001-of-00002.safetensors").unwrap();
        assert_eq!(split.names()[1], "sub/model-00002-of-00002.safetensors");
        for whole in [
            "phi-3.gguf",
            "",
            ".gguf",
            "ä",
            "x-1-of-2.gguf",
            "x-00003-of-00002.gguf",
            "x-00000-of-00002.gguf",
            "x-00001-of-99999.gguf",
            "x-0000+1-of-00002.gguf",
            "x-00001-of-00002.bin",
            "00001-of-00002.gguf",
        ] {
            assert_eq!(Split::of(whole), None, "{whole}");
            assert_eq!(Split::names_with(whole), [whole]);
        }
    }
}
