//! Looking for a dictionary in a folder.

use super::formats::{Described, Found, look_for_config, look_for_other, names, names_a_layer};
use super::{HookPoint, SaeError};
use crate::checkpoint::Folder;
use crate::matrix::Format;

/// Blocks looked through for a dictionary when the model's are not known.
const BLOCKS: usize = 128;

/// Which dictionary is wanted; what is `None` is taken from the folder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The hook point: which of several dictionaries, and an error if its files say another.
    pub hook: Option<HookPoint>,
    /// The hook point that the dictionary is given, whatever its files say.
    pub place: Option<HookPoint>,
    /// The width of the model's residual stream.
    pub width: Option<usize>,
    /// The model's blocks.
    pub layers: Option<usize>,
    /// How the two matrices are stored; `None` for [`super::default_format`].
    pub format: Option<Format>,
}

/// A dictionary that was found and opened.
pub(super) struct Located {
    pub described: Described,
    /// Where it belongs.
    pub hook: Option<HookPoint>,
    /// The file in the folder that may hold published examples of its latents.
    pub examples: Option<String>,
}

/// Finds the dictionary that is `wanted`, opens it, and says where it belongs.
pub(super) async fn find(folder: &Folder, wanted: &Wanted) -> Result<Located, SaeError> {
    for hook in wanted.hook.iter().chain(&wanted.place) {
        check_block(*hook, wanted)?;
    }
    let found = candidate(folder, wanted).await?;
    let described = found.describe(folder).await?;
    if let Some(model) = wanted.width.filter(|w| *w != described.width) {
        return Err(SaeError::WrongWidth {
            file: format!("{}{}", found.path, described.format),
            dictionary: described.width,
            model,
        });
    }
    let hook = hook_of(folder, &found, &described, wanted)?;
    if let Some(hook) = hook {
        check_block(hook, wanted)?;
    }
    Ok(Located {
        described,
        hook,
        examples: found.examples(),
    })
}

/// The hook point: the user's, or else the files', or else the folder's name.
fn hook_of(
    folder: &Folder,
    found: &Found,
    described: &Described,
    wanted: &Wanted,
) -> Result<Option<HookPoint>, SaeError> {
    if wanted.place.is_some() {
        return Ok(wanted.place);
    }
    let other = |error: &SaeError| SaeError::Hook {
        folder: folder.label().into(),
        reason: error.to_string(),
    };
    let named = match &described.hook {
        Some(Ok(hook)) => Some(*hook),
        Some(Err(error)) => return Err(other(error)),
        None => match found.hint(folder) {
            Some(Err(error)) => return Err(other(&error)),
            Some(Ok(hook)) => Some(hook),
            None => None,
        },
    };
    match (named, wanted.hook) {
        (Some(found), Some(asked)) if found != asked => Err(SaeError::OtherHook {
            folder: folder.label().into(),
            found,
            asked,
        }),
        _ => Ok(wanted.hook.or(named)),
    }
}

/// The dictionary in `folder`, or in the one of its sub-folders that is wanted.
async fn candidate(folder: &Folder, wanted: &Wanted) -> Result<Found, SaeError> {
    let mut found = match folder.paths() {
        Some(paths) => {
            if paths.is_empty() {
                // A folder that is not there is another mistake than one without a dictionary.
                folder.open(names::CONFIG).await?;
            }
            listed(folder, wanted, &paths).await?
        }
        None => asked_for(folder, wanted).await?,
    };
    match found.len() {
        0 => Err(SaeError::NotFound {
            folder: folder.described(),
            wanted: wanted
                .hook
                .map_or("layers.N".into(), |hook| hook.to_string()),
        }),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<&str> = found.iter().map(|f| f.path.trim_end_matches('/')).collect();
            Err(SaeError::Several {
                folder: folder.label().into(),
                found: names.join(", "),
            })
        }
    }
}

/// The dictionaries that may be meant, of a folder whose files are `paths`.
async fn listed(
    folder: &Folder,
    wanted: &Wanted,
    paths: &[String],
) -> Result<Vec<Found>, SaeError> {
    let mut places: Vec<&str> = paths
        .iter()
        .filter_map(|path| {
            let at = path.rfind('/').map_or(0, |slash| slash + 1);
            names::marks_folder(&path[at..]).then_some(&path[..at])
        })
        .collect();
    places.dedup();
    if places.is_empty() {
        let pickled = |path: &&String| path.ends_with(".pt") || path.ends_with(".pth");
        if let Some(file) = paths.iter().find(pickled) {
            return Err(SaeError::Pickle { file: file.clone() });
        }
    }
    // A folder that is a dictionary itself counts as that one.
    let several = !places.contains(&"") && places.len() > 1;
    if places.contains(&"") {
        places = vec![""];
    }
    let mut found = Vec::new();
    for path in places {
        let one = match look_for_config(folder, path).await? {
            Some(one) => Some(one),
            None => look_for_other(folder, path).await?,
        };
        let Some(one) = one else {
            continue;
        };
        let hint = one.hint(folder);
        let elsewhere = matches!(hint, Some(Err(_)));
        let hint = hint.and_then(Result::ok);
        let beyond = |hook: HookPoint| wanted.layers.is_some_and(|layers| hook.layer >= layers);
        if several && wanted.hook.is_some() && hint != wanted.hook {
            continue;
        }
        if !path.is_empty() && hint.is_some_and(beyond) {
            continue;
        }
        found.push((hint, elsewhere, one));
    }
    // Dictionaries of other places than the residual stream are none of those looked for.
    if found.iter().any(|(_, elsewhere, _)| !elsewhere) {
        found.retain(|(_, elsewhere, _)| !elsewhere);
    }
    // A sub-folder of another hook point than the one wanted is none of those looked for.
    if let Some(asked) = wanted.hook {
        found.retain(|(hint, _, one)| one.path.is_empty() || hint.is_none_or(|hook| hook == asked));
    }
    found.sort_by_key(|(hint, ..)| hint.map(|hook| hook.layer));
    Ok(found.into_iter().map(|(.., one)| one).collect())
}

/// The dictionaries that may be meant, of a folder that cannot be listed. Each place costs a request, so
/// that the likely ones come first.
async fn asked_for(folder: &Folder, wanted: &Wanted) -> Result<Vec<Found>, SaeError> {
    let of_hook = wanted.hook.map(|hook| format!("{hook}/"));
    let is_its = of_hook
        .as_ref()
        .is_none_or(|path| folder.label().ends_with(path.as_str()));
    let mut paths = vec![""];
    paths.extend(of_hook.as_deref());
    if !is_its {
        paths.reverse();
    }
    for path in paths {
        if let Some(found) = look_for_config(folder, path).await? {
            return Ok(vec![found]);
        }
    }
    let blocks = match (wanted.hook, names_a_layer(folder.label())) {
        (None, false) => wanted.layers.unwrap_or(BLOCKS),
        _ => 0,
    };
    let mut found = Vec::new();
    for layer in 0..blocks {
        let path = format!("{}/", HookPoint::block(layer));
        found.extend(look_for_config(folder, &path).await?);
    }
    if found.is_empty() {
        found.extend(look_for_other(folder, "").await?);
    }
    Ok(found)
}

fn check_block(hook: HookPoint, wanted: &Wanted) -> Result<(), SaeError> {
    match wanted.layers {
        Some(layers) if hook.layer >= layers => Err(SaeError::NoSuchBlock { hook, layers }),
        _ => Ok(()),
    }
}
