//! Topics: verb phrases, of which some verb-object pairs are held out of training.

use super::{Split, hash};

/// A verb phrase such as "kill a python process".
pub struct Topic {
    /// Harm category or domain.
    pub group: String,
    pub verb: String,
    pub object: String,
    pub phrase: String,
    pub split: Split,
}

/// All verb-object pairs of a table's rows (group, verbs, objects). About 27% are held out, but
/// never all pairs of a verb or of an object: a held-out pair is a new combination of known words.
pub fn parse_topics(salt: &str, rows: impl Iterator<Item = Vec<String>>) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for row in rows {
        let [group, verbs, objects] = &row[..] else {
            panic!("a topic line needs three fields, not {row:?}")
        };
        for verb in verbs.split(',').map(str::trim) {
            for object in objects.split(',').map(str::trim) {
                let phrase = format!("{verb} {object}");
                if topics.iter().any(|t| t.phrase == phrase) {
                    continue;
                }
                let split = match hash(&[salt, &phrase]) {
                    x if x < 0.15 => Split::Test,
                    x if x < 0.27 => Split::Validation,
                    _ => Split::Train,
                };
                let (group, verb, object) = (group.clone(), verb.to_string(), object.to_string());
                topics.push(Topic {
                    group,
                    verb,
                    object,
                    phrase,
                    split,
                });
            }
        }
    }
    let in_training = |topics: &[Topic], same: &dyn Fn(&Topic) -> bool| {
        topics.iter().any(|t| t.split == Split::Train && same(t))
    };
    for i in 0..topics.len() {
        let (group, verb, object) = (
            topics[i].group.clone(),
            topics[i].verb.clone(),
            topics[i].object.clone(),
        );
        let known = in_training(&topics, &|t| t.group == group && t.verb == verb)
            && in_training(&topics, &|t| t.group == group && t.object == object);
        if !known {
            topics[i].split = Split::Train;
        }
    }
    topics
}
