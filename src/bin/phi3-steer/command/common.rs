//! What several subcommands share.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::ValueEnum;
use phi3_steer::checkpoint::Folder;
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::matrix::{Format, open_checked};
use phi3_steer::phi3::{CacheFormat, Model, ModelFiles, ModelOptions, Precision};
use phi3_steer::sae::{HookPoint, Wanted};
use phi3_steer::tokens::ChatTokenizer;

use super::Failure;
use crate::header::{Entry, header};
use crate::output::{Output, note};

/// How weights are stored that the file has in plain numbers; quantised ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quant {
    /// What config.json says that it was measured at, else 8 bits below a billion parameters, and above 4
    /// bits with 8 for the embedding and the head; f16 key-value cache. As on the page.
    Auto,
    /// 4 bits and a scale for 32 weights, f16 key-value cache.
    Q4,
    /// 8 bits and a scale for 32 weights, f16 key-value cache.
    Q8,
    /// f32 weights and key-value cache.
    None,
}

impl Quant {
    /// The library's name for it.
    pub fn precision(self) -> Precision {
        match self {
            Self::Auto => Precision::BySize,
            Self::Q4 => Format::Q4.into(),
            Self::Q8 => Format::Q8.into(),
            Self::None => Format::F32.into(),
        }
    }
}

/// The model on the command line.
#[derive(Clone, clap::Args)]
pub struct ModelArguments {
    /// The model: a .gguf file, or a folder with one or with config.json, model.safetensors (or its
    /// index) and tokenizer.json.
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// How weights are stored that the file has in plain numbers.
    #[arg(long, value_enum, default_value = "auto")]
    pub quant: Quant,
}

/// Opens the GPU, or a software adapter, with products that were seen to give the right answer.
pub async fn open_gpu(cpu_adapter: bool) -> Result<Rc<Gpu>, Failure> {
    let options = GpuOptions {
        cpu_adapter,
        ..GpuOptions::default()
    };
    let (gpu, left_out) = open_checked(&options).await?;
    if let Some(sentence) = left_out {
        note(sentence);
    }
    Ok(Rc::new(gpu))
}

/// Loads a model for `lanes` lanes.
pub async fn load_model(
    gpu: &Rc<Gpu>,
    arguments: &ModelArguments,
    lanes: usize,
) -> Result<Model, Failure> {
    let files = ModelFiles::open(&model_folder(&arguments.model)).await?;
    load_files(gpu, files, arguments.quant, lanes).await
}

/// Loads an opened model for `lanes` lanes.
pub async fn load_files(
    gpu: &Rc<Gpu>,
    files: ModelFiles,
    quant: Quant,
    lanes: usize,
) -> Result<Model, Failure> {
    let options = ModelOptions {
        lanes,
        precision: quant.precision(),
        cache: match quant {
            Quant::None => CacheFormat::F32,
            _ => CacheFormat::F16,
        },
        ..ModelOptions::default()
    };
    let ModelFiles {
        config, checkpoint, ..
    } = &files;
    Ok(Model::from_checkpoint(gpu.clone(), config.clone(), checkpoint, options).await?)
}

/// The path of a file beside a model: in its folder, or in that of its only file.
pub fn beside(model: &Path, name: &str) -> PathBuf {
    if model.is_file() {
        model.with_file_name(name)
    } else {
        model.join(name)
    }
}

/// The folder that a model's path stands for: itself, or one of a single file.
pub fn model_folder(model: &Path) -> Folder {
    if model.is_file() {
        Folder::file(model)
    } else {
        Folder::directory(model)
    }
}

/// Loads a model's tokenizer.
pub async fn load_tokenizer(model: &Path) -> Result<Rc<ChatTokenizer>, Failure> {
    Ok(Rc::new(ChatTokenizer::open(&model_folder(model)).await?))
}

/// A dictionary that fits `model`.
pub fn wanted(model: &Model, hook: Option<HookPoint>) -> Wanted {
    Wanted {
        hook,
        width: Some(model.config().hidden_size),
        layers: Some(model.config().num_hidden_layers),
        ..Wanted::default()
    }
}

/// Bytes of a text file, or of stdin, at most.
const MOST_TEXT: u64 = 64 << 20;

/// A file's bytes, at most [`MOST_TEXT`]; `-` is stdin.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        return Ok(read_stdin()?.into_bytes());
    }
    let place = path.display();
    let opened = std::fs::File::open(path).map_err(|e| format!("{place} cannot be read: {e}"))?;
    read_some(opened, &place.to_string())
}

/// Everything on stdin, as text.
pub fn read_stdin() -> Result<String, Failure> {
    let bytes = read_some(std::io::stdin().lock(), "stdin")?;
    Ok(String::from_utf8(bytes).map_err(|e| format!("stdin cannot be read as text: {e}"))?)
}

fn read_some(from: impl Read, place: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = from.take(MOST_TEXT + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("{place} cannot be read: {e}"))?;
    if bytes.len() as u64 > MOST_TEXT {
        let most = MOST_TEXT >> 20;
        return Err(format!("{place} holds more than {most} MiB: is it the right one?").into());
    }
    Ok(bytes)
}

/// A tensor to write.
pub struct Tensor<'a> {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Numbers of some shape.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: &'a [f32]) -> Self {
        Self {
            name: name.into(),
            dtype: "F32",
            shape: shape.to_vec(),
            bytes: bytemuck::cast_slice(values),
        }
    }

    /// A list of counts.
    pub fn u32(name: impl Into<String>, values: &'a [u32]) -> Self {
        Self {
            name: name.into(),
            dtype: "U32",
            shape: vec![values.len()],
            bytes: bytemuck::cast_slice(values),
        }
    }
}

/// Writes tensors as a safetensors file.
pub fn write_safetensors(mut out: Output, tensors: &[Tensor<'_>]) -> Result<(), Failure> {
    let entries = tensors.iter().map(|tensor| Entry {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        bytes: tensor.bytes.len() as u64,
    });
    out.add(&header(entries))?;
    for tensor in tensors {
        out.add(tensor.bytes)?;
    }
    out.finish()
}
