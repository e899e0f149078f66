//! Keys with their names filled in, and what is meant by a path that leads to none.

use std::fmt;

use super::keys::{KEYS, Key};

/// Segments of a key that stand for any name.
const NAMES: [&str; 2] = ["NAME", "SINK"];

/// A key with its names filled in: `pipelines.ledger.retention`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) key: &'static Key,
    /// One for each segment that stands for a name.
    pub(super) names: Vec<String>,
}

impl Place {
    /// The place that a path of segments leads to, if it leads to a key.
    pub(super) fn find(path: &[String]) -> Option<Place> {
        KEYS.iter().find_map(|key| {
            let pattern: Vec<&str> = key.name.split('.').collect();
            (pattern.len() == path.len() && begins(&pattern, path))
                .then(|| Place { key, names: names(key, path) })
        })
    }

    pub(super) fn segments(&self) -> Vec<String> {
        let mut names = self.names.iter();
        let segments = self.key.name.split('.').map(|segment| match NAMES.contains(&segment) {
            true => names.next().cloned().unwrap_or_else(|| segment.to_owned()),
            false => segment.to_owned(),
        });
        segments.collect()
    }

    pub(super) fn default(&self) -> Option<String> {
        let default = self.key.default?;
        Some(match (default, self.names.first()) {
            ("NAME", Some(name)) => name.clone(),
            _ => default.to_owned(),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments().join("."))
    }
}

/// Whether keys lie below this path.
pub(super) fn is_section(path: &[String]) -> bool {
    KEYS.iter().any(|key| {
        let pattern: Vec<&str> = key.name.split('.').collect();
        pattern.len() > path.len() && begins(&pattern, path)
    })
}

fn begins(pattern: &[&str], path: &[String]) -> bool {
    pattern.iter().zip(path).all(|(expected, found)| NAMES.contains(expected) || expected == found)
}

/// What a path has where a key has names.
fn names(key: &Key, path: &[String]) -> Vec<String> {
    let segments = key.name.split('.').zip(path);
    segments.filter(|(segment, _)| NAMES.contains(segment)).map(|(_, name)| name.clone()).collect()
}

/// The known key that looks most like a path that leads to none. A key of that very name in another section
/// counts as alike.
pub(super) fn nearest(path: &[String]) -> Place {
    let likeness = |place: &Place| {
        let same_name = place.segments().last() == path.last();
        let likeness = strsim::normalized_damerau_levenshtein(&place.to_string(), &path.join("."));
        if same_name { likeness.max(0.75) } else { likeness }
    };
    let mut best = Place { key: &KEYS[0], names: Vec::new() };
    let mut best_likeness = 0.0;
    for key in KEYS {
        let place = Place { key, names: names(key, path) };
        let likeness = likeness(&place);
        if likeness > best_likeness {
            (best, best_likeness) = (place, likeness);
        }
    }
    best
}
