//! Whether a dictionary fits the model: the self-test on a text.

use std::cell::Cell;

use super::{GenerateError, TraceRequest, Traced, trace};
use crate::phi3::Model;
use crate::sae::{Dictionary, Encoder, Fit, HookPoint, SaeError, SelfTest, Verdict};
use crate::steering::Steering;
use crate::tokens::{ChatTokenizer, Message, Prompt, Role, TokenRole};

/// Tokens that are looked at, at most: the model runs over them once.
const MOST_TOKENS: usize = 256;

/// Tokens that are run, and vectors that are encoded, at a time: few, so that it can be stopped soon even
/// where a large model runs on a processor.
const CHUNK: usize = 16;

const QUESTION: &str = "Please describe a day in a small town by the sea.";

const ANSWER: &str = "The day begins early at the harbour. Before the sun is up, the boats come back, \
and the fishermen carry their boxes to the market hall. By eight o'clock the bakery on the corner has \
sold most of its bread, and the children walk to school past the old lighthouse. In the morning the \
library opens its doors. An elderly man reads three newspapers, one after the other, and a student \
borrows a book about the history of mathematics. At noon the church bell rings twelve times, and the \
cafés fill with people who talk about the weather, the football match on Saturday and the price of \
apples. In the afternoon it rains for 20 minutes. Then the clouds move on, and a family hires bicycles \
to ride along the coast. They stop twice: once to look at a heron, and once because the youngest child \
has lost a shoe. In the evening the light turns orange. A band plays two songs in the square, somebody \
dances, and the last bus leaves at a quarter past ten.";

/// Runs `text`, or a built-in one, through `model` unsteered, and compares what `dictionary` makes of the
/// residual stream at its hook point and at the outputs of the blocks before and after; where it has no
/// hook point, or does not fit it, at those of all blocks. The output of the block before is what
/// `hook_resid_pre` of the dictionary's block reads. The first token, whose residual is unlike others', does
/// not count.
///
/// The lanes' caches are overwritten. Set `cancel` to stop it with [`GenerateError::Cancelled`].
pub async fn self_test(
    model: &mut Model,
    dictionary: &Dictionary,
    tokenizer: &ChatTokenizer,
    text: Option<&str>,
    cancel: &Cell<bool>,
) -> Result<SelfTest, GenerateError> {
    let layers = model.config().num_hidden_layers;
    let width = model.config().hidden_size;
    if dictionary.width() != width {
        return Err(SaeError::WrongWidth {
            file: dictionary.label().into(),
            dictionary: dictionary.width(),
            model: width,
        }
        .into());
    }
    let stated = dictionary.hook();
    let near = |layer: &usize| stated.is_none_or(|hook| layer.abs_diff(hook.layer) <= 1);
    let (tried, rest): (Vec<usize>, Vec<usize>) = (0..layers).partition(near);
    let prompt = prompt_of(tokenizer, text, model.context().min(MOST_TOKENS))?;
    let gpu = model.gpu().clone();
    let encoder = Encoder::new(&gpu, dictionary, CHUNK).await?;
    let mut fits = fits_at(model, &encoder, &prompt, &tried, cancel).await?;
    let concluded = |fits| {
        SelfTest::conclude(stated, fits).ok_or_else(|| {
            let hook = stated.unwrap_or(HookPoint::block(0));
            GenerateError::from(SaeError::NoSuchBlock { hook, layers })
        })
    };
    let test = concluded(fits.clone())?;
    if test.verdict == Verdict::Fits || rest.is_empty() {
        return Ok(test);
    }
    fits.extend(fits_at(model, &encoder, &prompt, &rest, cancel).await?);
    concluded(fits)
}

/// How well the dictionary fits the outputs of the blocks `tried`, in their order.
async fn fits_at(
    model: &mut Model,
    encoder: &Encoder<'_>,
    prompt: &Prompt,
    tried: &[usize],
    cancel: &Cell<bool>,
) -> Result<Vec<Fit>, GenerateError> {
    let mut vectors = vec![Vec::new(); tried.len()];
    let request = TraceRequest {
        prompts: std::slice::from_ref(prompt),
        logits: &|_, _| false,
        residual: tried,
        chunk: CHUNK,
        cancel,
    };
    let mut take = |traced: Traced<'_>| {
        if let Traced::Residual {
            layer,
            position,
            residual,
            ..
        } = traced
            && position > 0
            && let Some(at) = tried.iter().position(|tried| *tried == layer)
        {
            vectors[at].extend_from_slice(residual);
        }
    };
    let unsteered = Steering::new(model, Vec::new()).await?;
    trace(model, &unsteered, &request, &mut take).await?;
    let mut fits = Vec::with_capacity(tried.len());
    for (&layer, x) in tried.iter().zip(&vectors) {
        let hook = HookPoint::block(layer);
        let fit = Fit::measure(encoder, hook, x, cancel).await?;
        fits.push(fit.ok_or(GenerateError::Cancelled)?);
    }
    Ok(fits)
}

/// The text as an answer in a conversation, cut off after `most` tokens.
fn prompt_of(
    tokenizer: &ChatTokenizer,
    text: Option<&str>,
    most: usize,
) -> Result<Prompt, GenerateError> {
    let message = |role, content: &str| Message {
        role,
        content: content.into(),
    };
    let messages = [
        message(Role::User, QUESTION),
        message(Role::Assistant, text.unwrap_or(ANSWER)),
    ];
    let mut prompt = tokenizer.chat(&messages, false)?;
    prompt.ids.truncate(most);
    prompt.roles.truncate(most);
    // Nothing is generated: whose token it is makes no difference without steering.
    prompt.roles.fill(TokenRole::Prompt);
    Ok(prompt)
}
