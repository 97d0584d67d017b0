//! Following a recipe of the lab from the command line.

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use phi3_steer::generate::Chat;
use phi3_steer::lab::{
    Journal, LabError, Progress, Recipe, Run, Sets, Stage, identity, run_recipe,
};
use phi3_steer::phi3::ModelFiles;
use phi3_steer::sae::{Dictionary, HookPoint};
use phi3_steer::steering::Steering;
use serde_json::Value;

use crate::command::Failure;
use crate::command::common::{
    ModelArguments, Quant, beside, load_files, model_folder, open_gpu, read_file, wanted,
};
use crate::command::dictionary::sae_folder;
use crate::output::{Existing, Output, Place, Sources, note, print_line};

/// The prompts for real chat models.
const REAL: &[u8] = include_bytes!("../../../../../sets/real.json");
/// Between two lines on how far it is.
const PAUSE: Duration = Duration::from_secs(10);

/// What every recipe needs.
#[derive(clap::Args)]
pub struct Shared {
    #[command(flatten)]
    pub model: ModelArguments,
    /// The dictionary: its folder or one of its files, in any format, or a folder with such folders.
    #[arg(long, value_name = "DIR")]
    pub sae: PathBuf,
    /// Prompts that run at once.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub lanes: usize,
    /// A file for what is measured, step by step: given again, the work goes on where it ended.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// The result (JSON); standard output if not given.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// The prompts called `name`: "nano" is eval.json beside the model, "real" those for chat models, any other
/// a file.
pub fn sets(name: &str, model: &Path) -> Result<(Sets, Option<PathBuf>), Failure> {
    let (name, path) = match name {
        "real" => return Ok((Sets::new("real", REAL)?, None)),
        "nano" => ("nano", beside(model, "eval.json")),
        file => ("own", PathBuf::from(file)),
    };
    let read = read_file(&path)?;
    // The file's name tells the halves of some benchmarks apart.
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let sets = Sets::new(&file, &read).map_err(|e| format!("{}: {e}", path.display()))?;
    let name = name.into();
    Ok((Sets { name, ..sets }, Some(path)))
}

/// What a model is called: the last part of its path.
pub fn name_of(model: &Path) -> String {
    let whole = model.canonicalize().unwrap_or_else(|_| model.into());
    let last = whole.file_name().map(|n| n.to_string_lossy().into_owned());
    last.unwrap_or_else(|| "model".into())
}

/// Loads the model and the dictionary at the recipe's hook point.
pub async fn load(shared: &Shared, recipe: &Recipe, cpu: bool) -> Result<Chat, Failure> {
    let Shared {
        model, sae, lanes, ..
    } = shared;
    load_at(&model.model, model.quant, sae, *lanes, recipe.hook, cpu).await
}

/// Loads a model, its weights as `quant` says, and the dictionary at `hook`.
pub async fn load_at(
    model: &Path,
    quant: Quant,
    sae: &Path,
    lanes: usize,
    hook: Option<HookPoint>,
    cpu: bool,
) -> Result<Chat, Failure> {
    let files = ModelFiles::open(&model_folder(model)).await?;
    let tokenizer = Rc::new(files.tokenizer().await?);
    let gpu = open_gpu(cpu).await?;
    let model = load_files(&gpu, files, quant, lanes).await?;
    let folder = sae_folder(sae)?;
    let dictionary = Dictionary::find(&gpu, &folder, wanted(&model, hook)).await?;
    let steering = Steering::new(&model, vec![dictionary]).await?;
    Ok(Chat::new(model, tokenizer, steering).await?)
}

/// Tells how far it is, now and then.
struct Teller {
    stage: Option<Stage>,
    last: Instant,
}

impl Teller {
    fn tell(&mut self, progress: Progress) {
        let Progress {
            stage,
            done,
            total,
            seconds_left,
        } = progress;
        let new = self.stage.replace(stage) != Some(stage);
        if !new && done < total && self.last.elapsed() < PAUSE {
            return;
        }
        self.last = Instant::now();
        let name = serde_json::to_value(stage).unwrap_or_default();
        let name = name.as_str().unwrap_or_default().to_string();
        let left = match seconds_left {
            Some(left) if done < total => format!(", about {left:.0} s left"),
            _ => String::new(),
        };
        note(&format!("{name}: {done} of {total} steps{left}"));
    }
}

/// Follows `recipe`, writing down each step in the journal, if there is one.
pub async fn follow(
    chat: &mut Chat,
    shared: &Shared,
    recipe: &Recipe,
    sets: &Sets,
) -> Result<Value, Failure> {
    let name = name_of(&shared.model.model);
    let about = identity(chat, &name, recipe, sets)?;
    let work = async |run: &mut Run<'_>| run_recipe(chat, &name, recipe, sets, run).await;
    journalled(shared, &about, work).await
}

/// Does `work`, writing down each step in the journal of what `about` says, if there is one.
pub async fn journalled<E: Into<Failure>>(
    shared: &Shared,
    about: &str,
    work: impl AsyncFnOnce(&mut Run<'_>) -> Result<Value, E>,
) -> Result<Value, Failure> {
    let failed = Rc::new(RefCell::new(None));
    let mut journal = match &shared.journal {
        None => Journal::new(about, Box::new(|_| {})),
        Some(path) => open_journal(path, about, &failed)?,
    };
    if !journal.is_empty() {
        note(&format!("{} steps were done before", journal.len()));
    }
    let mut teller = Teller {
        stage: None,
        last: Instant::now(),
    };
    let cancel = Cell::new(false);
    let mut tell = |progress| {
        // A journal that cannot be written any more is the end: what follows would be lost.
        cancel.set(failed.borrow().is_some());
        teller.tell(progress);
    };
    let mut run = Run::new(&mut journal, &cancel, &mut tell);
    let result = work(&mut run).await;
    if let Some(error) = failed.borrow_mut().take() {
        return Err(error);
    }
    result.map_err(Into::into)
}

type Failed = Rc<RefCell<Option<Failure>>>;

/// The journal in a file, whose torn last line is cut off.
fn open_journal(path: &Path, about: &str, failed: &Failed) -> Result<Journal, Failure> {
    let place = path.display().to_string();
    let lines = match path.exists() {
        true => String::from_utf8(read_file(path)?)
            .map_err(|_| format!("{place} is no journal: it is not text"))?,
        false => String::new(),
    };
    // Before anything is written: it may be another recipe's.
    let kept = match Journal::resume(about, &lines, Box::new(|_| {})) {
        Ok(journal) => journal.kept(),
        Err(LabError::Journal(reason)) => return Err(format!("{place}: {reason}").into()),
        Err(e) => return Err(e.into()),
    };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| format!("{place} cannot be written: {e}"))?;
    file.set_len(kept as u64)
        .map_err(|e| format!("{place} cannot be written: {e}"))?;
    let failed = failed.clone();
    let sink = move |line: &str| {
        let mut file = &file;
        if let Err(e) = file.write_all(format!("{line}\n").as_bytes()) {
            let error = format!("{place} cannot be written: {e}");
            failed.borrow_mut().get_or_insert_with(|| error.into());
        }
    };
    Ok(Journal::resume(about, &lines[..kept], Box::new(sink))?)
}

/// Where a result goes, found out before anything is computed.
pub fn place(shared: &Shared, read: &[&Path]) -> Result<Option<Output>, Failure> {
    let mut all = vec![shared.model.model.as_path(), &shared.sae];
    all.extend(read);
    all.extend(shared.journal.as_deref());
    let out = shared.out.as_deref();
    let out = out.map(|out| Output::create(out, Existing::Replaced, Sources::new(&all)));
    if let Some(journal) = &shared.journal {
        // Found out and let go: the journal is only ever added to.
        drop(Place::find(
            journal,
            Existing::Replaced,
            Sources::new(&[shared.model.model.as_path(), &shared.sae]),
        )?);
    }
    out.transpose().map_err(Into::into)
}

/// Hands the result over.
pub fn finish(out: Option<Output>, result: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(result)?;
    match out {
        None => print_line(&text),
        Some(mut out) => {
            out.add(format!("{text}\n").as_bytes())?;
            out.finish()
        }
    }
}
