//! What pipelines and their schemas may be called.

/// The longest name; `debshrew_NAME`, the journals' schema, must fit into the 63 bytes of PostgreSQL's names.
const LONGEST_NAME: usize = 40;
const LONGEST_SCHEMA: usize = 63;

/// Why a pipeline cannot be called this, if it cannot.
pub(super) fn problem_with_pipeline(name: &str) -> Option<String> {
    problem(name, "pipeline")
}

/// The same of a sink.
pub(super) fn problem_with_sink(name: &str) -> Option<String> {
    problem(name, "sink")
}

fn problem(name: &str, of: &str) -> Option<String> {
    let well_formed = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if well_formed && name.len() <= LONGEST_NAME {
        return None;
    }
    Some(format!(
        "is no name for a {of}; it must begin with one of `a` to `z`, go on with those, digits and `_`, and \
         be no longer than {LONGEST_NAME}"
    ))
}

/// What a schema's name must be, if it is not that.
pub(super) fn problem_with_schema(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > LONGEST_SCHEMA || name.contains('\0') {
        return Some(format!("a schema's name has 1 to {LONGEST_SCHEMA} bytes"));
    }
    let reserved = name == "debshrew" || name.starts_with("debshrew_") || name.starts_with("pg_");
    (reserved || name == "information_schema").then(|| {
        "the schemas `debshrew`, `debshrew_…`, `pg_…` and `information_schema` are not for a transform's tables"
            .to_owned()
    })
}

/// Whether HTTP allows a header of this name. Source: RFC 9110, section 5.6.2, "Tokens".
pub(super) fn is_header(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_their_rules() {
        let longest = "a".repeat(40);
        for good in ["a", "ledger", "a_1", "a__b_", &longest] {
            assert_eq!(problem_with_pipeline(good), None, "{good}");
        }
        for bad in ["", "A", "1a", "_a", "a-b", "a b", "ä", &"a".repeat(41)] {
            assert!(problem_with_pipeline(bad).is_some(), "{bad}");
        }
        for good in ["public", "Ledger", "debshrews", "my schema"] {
            assert_eq!(problem_with_schema(good), None, "{good}");
        }
        for bad in
            ["", "debshrew", "debshrew_x", "pg_catalog", "pg_", "information_schema", "a\0", &"a".repeat(64)]
        {
            assert!(problem_with_schema(bad).is_some(), "{bad}");
        }
        assert!(is_header("x-api.key") && !is_header("a b") && !is_header(""));
    }
}
