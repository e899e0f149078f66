//! The status page: one file, to which a browser adds nothing from anywhere.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::{Hash, sha256};

const HTML: &str = include_str!("page.html");

/// The page, and what a browser may do with it.
pub(super) struct Page {
    pub(super) html: &'static str,
    pub(super) policy: String,
}

impl Page {
    /// Its own style and script are told by their hashes; whatever else got into it would not run.
    pub(super) fn new() -> Page {
        let (style, script) = (hash(within("<style>", "</style>")), hash(within("<script>", "</script>")));
        let policy = format!(
            "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Page { html: HTML, policy }
    }
}

fn within(begin: &str, end: &str) -> &'static str {
    let after = HTML.split_once(begin).map_or("", |(_, after)| after);
    after.split_once(end).map_or("", |(inside, _)| inside)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(sha256::Hash::hash(text.as_bytes()).to_byte_array()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_one_style_and_one_script_and_needs_nothing_else() {
        let page = Page::new();
        for tag in ["<style>", "<script>"] {
            assert_eq!(page.html.matches(tag).count(), 1, "{tag}");
        }
        assert!(within("<style>", "</style>").len() > 100 && within("<script>", "</script>").len() > 100);
        for unwanted in ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick="]
        {
            assert!(!page.html.contains(unwanted), "{unwanted}");
        }
        // Names of XML's own are not fetched.
        assert_eq!(page.html.replace("http://www.w3.org/2000/svg", "").matches("://").count(), 0);
        assert!(page.policy.starts_with("default-src 'none'; style-src 'sha256-"), "{}", page.policy);
    }
}
