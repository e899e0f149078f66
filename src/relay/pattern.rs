//! Which tables a sink is about.

/// Names of tables, in which `*` stands for any characters.
#[derive(Clone, Debug)]
pub(super) struct Patterns(Vec<String>);

impl Patterns {
    pub(super) fn new(patterns: &[String]) -> Patterns {
        Patterns(patterns.to_vec())
    }

    pub(super) fn match_(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    let mut ends = rest.char_indices().map(|(end, _)| end).chain([rest.len()]);
    ends.any(|end| matches(after, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let is = |pattern: &str, name: &str| matches(pattern, name);
        assert!(is("*", "") && is("*", "a") && is("a*", "abc") && is("*c", "abc") && is("a*c*e", "abcde"));
        assert!(is("a", "a") && !is("a", "ab") && !is("a*c", "ab") && !is("", "a"));
        assert!(is("ä*", "äö") && is("**", "x"));
    }
}
