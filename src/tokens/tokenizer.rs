//! Text to tokens and back, with the `tokenizers` crate.

use std::collections::HashSet;
use std::rc::Rc;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizer::Range;
use tokenizers::{
    Encoding, Model, NormalizedString, NormalizerWrapper, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper, Token,
};

use super::added::AddedTokens;
use super::chat::{
    Before, ChatFormat, Layout, Message, Part, Phi3Tokens, Prompt, Special, TURNS, TokenRole,
};
use super::decode::{Detokenizer, Piece, Pieces};
use super::settings::{CONFIG, Settings, TOKENIZER};
use super::spec::{Added, Spec};
use super::template::Seams;
use super::{TokenError, TokenizerFiles};
use crate::checkpoint::shown;
use crate::checkpoint::{Folder, Gguf};

/// Tokens after which an answer is complete, where the vocabulary has them.
pub(super) const STOPS: [&str; 2] = ["<|endoftext|>", "</s>"];

/// A model's tokenizer, with its chat format.
pub struct ChatTokenizer {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: BPE,
    /// Added tokens that are found in what a visitor types: all that are text.
    typed: AddedTokens,
    /// All added tokens.
    marks: AddedTokens,
    /// The names of special tokens, by number.
    names: Vec<(u32, String)>,
    vocabulary: Rc<Pieces>,
    chat: ChatFormat,
    /// The token in front of any text, if the model wants one.
    bos: Option<u32>,
    stops: Vec<u32>,
}

impl ChatTokenizer {
    /// Reads the tokenizer of a model's folder: the vocabulary of its `.gguf` file, which may hold nothing
    /// else, or `tokenizer.json` with the files beside it.
    pub async fn open(folder: &Folder) -> Result<Self, TokenError> {
        if let Some(gguf) = Gguf::find(folder).await?
            && gguf.has_vocabulary()
        {
            return Self::from_gguf(gguf.metadata());
        }
        match TokenizerFiles::open(folder).await? {
            Some(files) => Self::from_files(&files),
            None => Err(TokenError::NoTokenizer {
                folder: folder.described(),
            }),
        }
    }

    /// Reads a `tokenizer.json`, and the `tokenizer_config.json` beside it if there is one.
    pub fn from_json(tokenizer_json: &[u8], config: Option<&[u8]>) -> Result<Self, TokenError> {
        let mut files = vec![(TOKENIZER, tokenizer_json.to_vec())];
        files.extend(config.map(|config| (CONFIG, config.to_vec())));
        Self::from_files(&TokenizerFiles::new(files))
    }

    /// Reads the files of a tokenizer.
    ///
    /// The chat format is Phi-3's where the vocabulary has its tokens, else that of the model's chat
    /// template. A conversation begins with the model's `<s>` if `add_bos_token` says so (without that
    /// entry: if the tokenizer's post-processor does), or if the chat template writes it.
    pub fn from_files(files: &TokenizerFiles) -> Result<Self, TokenError> {
        let spec = Spec::read(files.get(TOKENIZER).unwrap_or_default())?;
        let settings = Settings::read(files)?;
        let special = |name: &str| -> Result<Special, TokenError> {
            let id = spec.id(name);
            let id = id.ok_or_else(|| TokenError::MissingToken { token: shown(name) })?;
            let added = spec.added.iter().find(|token| token.id == id);
            Ok(Special {
                id,
                text: name.into(),
                lstrip: added.is_some_and(|token| token.lstrip),
                rstrip: added.is_some_and(|token| token.rstrip),
            })
        };
        let bos = settings.bos.as_deref().unwrap_or("<s>");
        let adds_bos = match settings.add_bos {
            Some(adds) => adds,
            None => puts_in_front(&spec.post_processor, bos),
        };
        let has_bos = adds_bos || writes_bos(&settings.template, bos);
        let is_phi3 = TURNS.into_iter().all(|name| spec.id(name).is_some());
        let chat = match is_phi3 {
            true => {
                let eos = settings.eos.as_deref();
                let ends_with_eos = settings.template.contains("eos_token");
                ChatFormat::phi3(&Phi3Tokens {
                    bos: has_bos.then(|| special(bos)).transpose()?,
                    system: special("<|system|>")?,
                    user: special("<|user|>")?,
                    assistant: special("<|assistant|>")?,
                    end: special("<|end|>")?,
                    eos: eos.filter(|_| ends_with_eos).map(special).transpose()?,
                })
            }
            false => of_template(&settings, &spec, bos, adds_bos)?,
        };
        let first = spec.id(bos).filter(|_| has_bos);
        // A turn that the model begins is not its own.
        let turns = TURNS.into_iter().filter(|_| is_phi3);
        let names = turns.chain(STOPS);
        let names = names.chain(settings.ends.iter().map(String::as_str));
        let mut named: Vec<u32> = names.filter_map(|name| spec.id(name)).collect();
        named.extend(chat.stops());
        let mut stops = named.clone();
        named.extend(chat.all_marks());
        named.sort_unstable();
        named.dedup();
        let last = spec.added.last().map_or(0, |token| token.id as usize + 1);
        let count = last.max(spec.words.len());
        stops.extend(settings.stops.iter().filter(|id| (**id as usize) < count));
        stops.sort_unstable();
        stops.dedup();
        // Marks of the format, which no message can write and no answer shows.
        let special = spec.added.iter().filter(|t| t.special).map(|t| t.id);
        let ends = spec.added.iter().map(|t| t.id);
        let ends = ends.filter(|id| stops.binary_search(id).is_ok());
        let hidden: HashSet<u32> = special.chain(ends).chain(named.iter().copied()).collect();
        let Spec {
            mut added,
            normalizer,
            pre_tokenizer,
            model,
            words,
            style,
            ..
        } = spec;
        let mut pieces: Vec<Piece> = words
            .into_iter()
            .map(|word| word.map_or(Piece::Nothing, |word| style.piece(&word)))
            .collect();
        pieces.resize(count, Piece::Nothing);
        for token in &added {
            pieces[token.id as usize] = style.added_piece(&token.content);
        }
        let mut names = Vec::new();
        for &id in &hidden {
            pieces[id as usize] = Piece::Nothing;
            if let Some(token) = added.iter().find(|token| token.id == id) {
                names.push((id, token.content.clone()));
            } else if let Some(name) = model.id_to_token(id) {
                // A mark that the file has as a word.
                added.push(Added::mark(id, &name));
                names.push((id, name));
            }
        }
        let typed = added.iter().filter(|token| !hidden.contains(&token.id));
        let tokenizer = Self {
            typed: AddedTokens::new(typed.cloned(), normalizer.as_ref())?,
            marks: AddedTokens::new(added.into_iter(), normalizer.as_ref())?,
            names,
            vocabulary: Rc::new(Pieces { style, pieces }),
            normalizer,
            pre_tokenizer,
            model,
            bos: first,
            chat,
            stops,
        };
        tokenizer.check_marks(&named)?;
        Ok(tokenizer)
    }

    /// Refuses a vocabulary in which text that is typed becomes one of `marks`.
    fn check_marks(&self, marks: &[u32]) -> Result<(), TokenError> {
        for (id, name) in self.names.iter().filter(|(id, _)| marks.contains(id)) {
            // What cannot be encoded at all is not encoded to a mark.
            if self.encode(name).is_ok_and(|ids| ids.contains(id)) {
                let name = shown(name);
                return Err(TokenError::BadTokenizer {
                    reason: format!(
                        "the text \"{name}\" in a message would be the token of that name, so that a \
                         message could end its turn and begin another"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Gives a number that has no token a text of its own.
    pub(super) fn add_piece(&mut self, id: u32, text: &str) {
        let style = self.vocabulary.style;
        if let Some(vocabulary) = Rc::get_mut(&mut self.vocabulary) {
            let at = id as usize;
            if at >= vocabulary.pieces.len() {
                vocabulary.pieces.resize(at + 1, Piece::Nothing);
            }
            vocabulary.pieces[at] = style.piece(text);
        }
    }

    /// The tokens of ordinary text, without any in front. Text that looks like a special token is
    /// text like any other.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        let prompt = self.encode_layout(&Layout::plain(text))?;
        Ok(prompt.ids)
    }

    /// The tokens of text in which special tokens are written out, such as a conversation that is
    /// already in the chat format. Not for what a visitor types.
    pub fn encode_markup(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        let mut text = PreTokenizedString::from(text);
        self.marks.split(&mut text, self.normalizer.as_ref())?;
        Ok(self.words(text)?.get_ids().to_vec())
    }

    /// The tokens of a conversation in the model's chat format, ready for an answer with
    /// `add_generation_prompt`. What the messages say is ordinary text, whatever it looks like: a
    /// message cannot forge a turn. An empty list of messages is the caller's concern.
    ///
    /// # Errors
    /// [`TokenError::NoPlace`] where the format has no place for one of the messages.
    pub fn chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Prompt, TokenError> {
        let layout = self
            .chat
            .layout(Before::Start, messages, add_generation_prompt)?;
        self.encode_layout(&layout)
    }

    /// What follows the tokens that an assistant said in a conversation that goes on with `messages`: from
    /// the token that ends an answer on.
    pub fn chat_after_answer(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Prompt, TokenError> {
        let layout = self
            .chat
            .layout(Before::Assistant, messages, add_generation_prompt)?;
        let mut prompt = self.encode_layout(&layout)?;
        let end = prompt.ids.iter().position(|id| *id == self.chat.end);
        prompt.ids.drain(..end.unwrap_or(0));
        prompt.roles.drain(..end.unwrap_or(0));
        Ok(prompt)
    }

    /// Where the last turn of a conversation that is ready for an answer begins: the position of its first
    /// token, 0 if no other turn comes before it.
    pub fn last_turn(&self, prompt: &Prompt) -> usize {
        self.chat.last_turn(prompt)
    }

    /// The text of tokens; special tokens add nothing. What a [`Detokenizer`] gives in all.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut detokenizer = self.detokenizer();
        let mut text: String = tokens.iter().map(|&t| detokenizer.push(t)).collect();
        text += &detokenizer.finish();
        text
    }

    /// A detokenizer at the start of a text.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(self.vocabulary.clone())
    }

    /// The bytes that a token adds to the text, its leading space kept; none for a special token, or a number
    /// without a token.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        match self.vocabulary.pieces.get(token as usize) {
            Some(Piece::Text(text)) => text.as_bytes(),
            Some(Piece::Bytes(bytes)) => bytes,
            Some(Piece::Nothing) | None => &[],
        }
    }

    /// One token for display: its text with the leading space kept, `<0xE4>` for a byte that is no
    /// character by itself, the name of a special token, "" for a number without a token.
    pub fn token_text(&self, token: u32) -> String {
        let text = match self.vocabulary.pieces.get(token as usize) {
            None => None,
            Some(Piece::Text(text)) => Some(text.to_string()),
            Some(Piece::Bytes(bytes)) => std::str::from_utf8(bytes).ok().map(String::from),
            Some(Piece::Nothing) => None,
        };
        let name = || {
            let name = self.names.iter().find(|(id, _)| *id == token);
            name.map(|(_, name)| name.clone())
        };
        text.or_else(name)
            .or_else(|| self.model.id_to_token(token))
            .unwrap_or_default()
    }

    /// One more than the largest token number. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.pieces.len()
    }

    /// The token in front of a conversation, if the model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends what an assistant says: Phi-3's `<|end|>`.
    pub fn end(&self) -> u32 {
        self.chat.end
    }

    /// The tokens that end an answer, sorted: those that begin and end a turn,
    /// `<|endoftext|>`, `</s>`, the `eos_token` of the tokenizer's files, and `eos_token_id` of
    /// `config.json` and `generation_config.json`, as far as the vocabulary has them.
    pub fn stop_tokens(&self) -> Vec<u32> {
        self.stops.clone()
    }

    /// Encodes as the `tokenizers` crate does, but for the special tokens, which are those that
    /// the layout names rather than those that the text seems to contain.
    fn encode_layout(&self, layout: &Layout) -> Result<Prompt, TokenError> {
        let mut text = PreTokenizedString::from(layout.text.as_str());
        text.split(|_, whole| {
            let parts = layout.stretches.iter().map(|stretch| {
                let part = whole.slice(Range::Original(stretch.range.clone()));
                let part: NormalizedString = part.ok_or("a stretch is no part of the text")?;
                let token = stretch.special.map(|id| {
                    let value = part.get().to_string();
                    let end = value.len();
                    vec![Token::new(id, value, (0, end))]
                });
                Ok((part, token))
            });
            parts.collect::<tokenizers::Result<Vec<_>>>()
        })
        .map_err(encode_error)?;
        self.typed.split(&mut text, self.normalizer.as_ref())?;
        let encoding = self.words(text)?;
        let roles = encoding.get_offsets().iter();
        Ok(Prompt {
            roles: roles.map(|&(start, end)| layout.role(start, end)).collect(),
            ids: encoding.get_ids().to_vec(),
        })
    }

    /// The tokens of text that is normalized and in which tokens were found.
    fn words(&self, mut text: PreTokenizedString) -> Result<Encoding, TokenError> {
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer
                .pre_tokenize(&mut text)
                .map_err(encode_error)?;
        }
        text.tokenize(|part| self.model.tokenize(part.get()))
            .map_err(encode_error)?;
        text.into_encoding(None, 0, OffsetType::Byte)
            .map_err(encode_error)
    }
}

impl Layout {
    /// Ordinary text.
    fn plain(text: &str) -> Self {
        let mut layout = Self::default();
        layout.push_text(text, TokenRole::Prompt);
        layout
    }

    /// The part that the token of these bytes plays.
    fn role(&self, start: usize, end: usize) -> TokenRole {
        let after = self.stretches.partition_point(|s| s.range.start <= start);
        match after.checked_sub(1).and_then(|i| self.stretches.get(i)) {
            Some(stretch) if start >= stretch.from || end > stretch.from => stretch.role,
            _ => TokenRole::Prompt,
        }
    }
}

/// The format of the chat template.
fn of_template(
    settings: &Settings,
    spec: &Spec,
    bos: &str,
    adds_bos: bool,
) -> Result<ChatFormat, TokenError> {
    if settings.template.trim().is_empty() {
        // A vocabulary of Phi-3's that is not whole.
        let has = |name: &&str| spec.id(name).is_some();
        let missing = TURNS.iter().find(|name| !has(name));
        return Err(
            match missing.filter(|_| TURNS.iter().any(|name| spec.id(name).is_some())) {
                Some(token) => TokenError::MissingToken {
                    token: (*token).into(),
                },
                None => TokenError::NoTemplate,
            },
        );
    }
    let eos = settings.eos.as_deref().unwrap_or("</s>");
    let seams = Seams::of(&settings.template, bos, eos);
    let seams = seams.map_err(|reason| TokenError::Template { reason })?;
    let specials: Vec<&Added> = spec.added.iter().filter(|token| token.special).collect();
    let special = |token: &Added| Special {
        id: token.id,
        text: token.content.clone(),
        lstrip: token.lstrip,
        rstrip: token.rstrip,
    };
    // The special tokens of a text, the longest of those that begin at one place.
    let find = |mut text: &str| {
        let mut parts = Vec::new();
        while !text.is_empty() {
            let found = specials
                .iter()
                .filter_map(|token| Some((text.find(&token.content)?, *token)))
                .min_by_key(|(at, token)| (*at, std::cmp::Reverse(token.content.len())));
            let (at, after) = found.map_or((text.len(), text.len()), |(at, token)| {
                (at, at + token.content.len())
            });
            if at > 0 {
                parts.push(Part::Text(text[..at].into()));
            }
            parts.extend(found.map(|(_, token)| Part::Special(special(token))));
            text = &text[after..];
        }
        parts
    };
    let first = specials.iter().find(|token| token.content == bos);
    let first = first.map(|token| special(token));
    let format = ChatFormat::of_seams(&seams, first.as_ref(), adds_bos, find);
    format.ok_or_else(|| TokenError::Template {
        reason: "no special token ends what the assistant says".into(),
    })
}

/// Whether a `post_processor` of a `tokenizer.json` puts `bos` in front of a text. It is read rather
/// than tried: the `tokenizers` crate panics on templates with tokens that they do not define.
fn puts_in_front(processor: &Value, bos: &str) -> bool {
    match processor["type"].as_str() {
        Some("TemplateProcessing") => processor["single"][0]["SpecialToken"]["id"] == bos,
        Some("Sequence") => {
            let parts = processor["processors"].as_array();
            parts.is_some_and(|parts| parts.iter().any(|part| puts_in_front(part, bos)))
        }
        _ => false,
    }
}

/// Whether a chat template puts `bos` in front of the first message, by its variable or its text.
fn writes_bos(template: &str, bos: &str) -> bool {
    let loop_at = template.find("for message").unwrap_or(template.len());
    template.contains("bos_token") || template[..loop_at].contains(bos)
}

pub(super) fn encode_error(error: tokenizers::Error) -> TokenError {
    TokenError::Encode {
        reason: shown(&error.to_string()),
    }
}
