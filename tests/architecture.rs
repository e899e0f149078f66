//! The shape of the code: who imports whom, that there are no cycles, and how long a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const LONGEST_FILE: usize = 500;

/// Who may import whom; ARCHITECTURE.md has the same table. `telemetry` may be imported by all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("block", &[]),
    ("failure", &[]),
    ("printable", &[]),
    ("terminal", &[]),
    ("otlp", &[]),
    ("telemetry", &["otlp", "printable", "terminal"]),
    ("file", &[]),
    ("view", &[]),
    ("web", &[]),
    ("config", &["block", "file"]),
    ("change", &["block"]),
    ("cluster", &["failure"]),
    ("simulate", &["block", "file", "web"]),
    ("observe", &["block"]),
    ("reorg", &["block"]),
    ("source", &["block", "config", "failure", "observe", "view"]),
    ("runtime", &["block", "change", "config", "failure", "view"]),
    ("db", &["config", "failure", "file"]),
    ("table", &["block", "change", "db", "failure"]),
    ("register", &["block", "db", "failure", "printable"]),
    ("commit", &["block", "db", "failure", "table", "register"]),
    ("undo", &["block", "db", "failure", "table", "register"]),
    ("schema", &["block", "db", "failure", "table", "register"]),
    (
        "relay",
        &[
            "block",
            "config",
            "db",
            "failure",
            "file",
            "observe",
            "printable",
            "register",
            "schema",
            "table",
            "terminal",
            "undo",
        ],
    ),
    ("server", &["block", "config", "db", "failure", "observe", "printable", "register", "web"]),
    (
        "pipeline",
        &[
            "block", "failure", "view", "config", "change", "source", "runtime", "db", "table", "register",
            "commit", "undo", "schema", "reorg", "observe",
        ],
    ),
];

/// May import all.
const TOP: [&str; 1] = ["cli"];

type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_import_only_what_the_table_allows() {
    let imports = imports_of(&root().join("src"));
    assert!(imports["db"].contains("config") && imports["cli"].contains("config"), "{imports:?}");
    assert_eq!(violations(&imports), Vec::<String>::new());
}

#[test]
fn the_table_and_the_code_have_no_cycle() {
    let table: Imports = ALLOWED
        .iter()
        .map(|(module, imports)| {
            ((*module).to_owned(), imports.iter().map(|name| (*name).to_owned()).collect())
        })
        .collect();
    assert_eq!(cycle(&table), None);
    assert_eq!(cycle(&imports_of(&root().join("src"))), None);
}

#[test]
fn no_module_is_in_the_table_that_is_not_there() {
    let imports = imports_of(&root().join("src"));
    let missing: Vec<&str> =
        ALLOWED.iter().map(|(module, _)| *module).filter(|module| !imports.contains_key(*module)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_files_of_a_folder_have_no_cycle() {
    let mut folders = 0;
    for folder in folders_in(&root().join("src")) {
        let imports = siblings_of(&folder);
        folders += usize::from(imports.values().any(|names| !names.is_empty()));
        assert_eq!(cycle(&imports), None, "{}", folder.display());
    }
    assert!(folders > 10, "{folders} folders whose files import one another");
}

#[test]
fn imports_of_siblings_are_found_through_what_their_parent_exports() {
    let parent = "mod a;\nmod b;\npub use a::{A, make as made};\npub(crate) use b::B;\npub struct Own;";
    let exports = exports_in(parent);
    let found = |text: &str| {
        let names = siblings_in(text, &["a", "b"], &exports);
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("use super::a;"), "a");
    assert_eq!(found("use super::{B, Own};"), "b");
    assert_eq!(found("use super::{\n    a::{self, X},\n    Own,\n};"), "a");
    assert_eq!(found("let x = super::made();"), "a");
    assert_eq!(found("let x = super::b::f(super::Own);"), "b");
    assert_eq!(found("use super::Own; // super::a"), "");
    assert_eq!(found("#[cfg(test)]\nmod tests {\n    use super::a;\n}"), "");
}

#[test]
fn no_file_is_too_long() {
    let files: Vec<PathBuf> =
        ["src", "transforms", "benches"].iter().flat_map(|folder| files(&root().join(folder))).collect();
    let too_long: Vec<String> = files
        .iter()
        .map(|path| (path, length(&std::fs::read_to_string(path).unwrap())))
        .filter(|(_, length)| *length > LONGEST_FILE)
        .map(|(path, length)| format!("{}: {length} lines", path.display()))
        .collect();
    assert!(files.len() > 20, "{files:?}");
    assert_eq!(too_long, Vec::<String>::new(), "at most {LONGEST_FILE} lines, tests aside");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let found = |text: &str| imports_in(text).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(found("use crate::block::Height;"), "block");
    assert_eq!(found("pub use crate::block;"), "block");
    assert_eq!(found("use crate::{block, change::{self, fold::Fold}, db as d};"), "block change db");
    assert_eq!(
        found("use crate::{\n    block::{Height, BlockHash},\n    db::{\n        lock,\n    },\n};"),
        "block db"
    );
    assert_eq!(found("use crate::{config::{a, b}, source};"), "config source");
    assert_eq!(found("let x = crate::apply::x(crate::db::quote(y));"), "apply db");
    assert_eq!(found("// crate::apply::x\n/// [`crate::db`]\npub(crate) fn f() {}"), "");
    assert_eq!(found("let crate_ = mycrate::x; // crate::db"), "");
}

#[test]
fn what_breaks_the_table_is_seen() {
    let imports = |pairs: &[(&str, &str)]| -> Imports {
        let mut imports = Imports::new();
        for (module, import) in pairs {
            imports.entry((*module).to_owned()).or_default().insert((*import).to_owned());
        }
        imports
    };
    assert_eq!(
        violations(&imports(&[("source", "config"), ("source", "telemetry"), ("cli", "pipeline")])),
        [""; 0]
    );
    assert_eq!(violations(&imports(&[("source", "runtime")])), ["`source` imports `runtime`"]);
    assert_eq!(violations(&imports(&[("novel", "block")])), ["`novel` is not in the table"]);
    assert_eq!(violations(&imports(&[("block", "cli")])), ["`block` imports `cli`"]);
    let circle = imports(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "a")]);
    assert_eq!(cycle(&circle).as_deref(), Some("a → b → c → a"));
    assert_eq!(cycle(&imports(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    assert_eq!(length("a\n#[cfg(test)]\nuse x;\nb\n\n#[cfg(test)]\nmod tests {\n}\n"), 5);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `.rs` files in a folder and those below it, but for what Cargo builds there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lines of a file, without the unit tests at its end.
fn length(text: &str) -> usize {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count()
}

/// Per module (a file or folder right in `source`) the other modules that it names.
fn imports_of(source: &Path) -> Imports {
    let mut imports = Imports::new();
    for path in files(source) {
        let first = path.strip_prefix(source).unwrap().iter().next().unwrap();
        let module = Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned();
        if module != "lib" && module != "main" {
            let names = imports_in(&std::fs::read_to_string(&path).unwrap());
            imports
                .entry(module.clone())
                .or_default()
                .extend(names.into_iter().filter(|name| *name != module));
        }
    }
    imports
}

/// A folder and those below it.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        files(folder).iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
    found.dedup();
    found.sort();
    found.dedup();
    found
}

/// Per file of a folder, the others that it names. The folder's own `mod.rs` is the face of all of them: it is none of
/// them, but what it passes on is theirs.
fn siblings_of(folder: &Path) -> Imports {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let face = std::fs::read_to_string(folder.join("mod.rs")).unwrap_or_default();
    let exports = exports_in(&face);
    let own: Vec<PathBuf> = files(folder)
        .into_iter()
        .filter(|path| path.parent() == Some(folder) && stem(path) != "mod")
        .collect();
    let names: Vec<String> = own.iter().map(stem).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    own.iter()
        .map(|path| {
            let found = siblings_in(&std::fs::read_to_string(path).unwrap(), &names, &exports);
            (stem(path), found.into_iter().filter(|name| *name != stem(path)).collect())
        })
        .collect()
}

/// Where the names that a module passes on come from.
fn exports_in(text: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for statement in text.split(';') {
        let Some((_, path)) = statement.split_once("use ") else { continue };
        let Some((module, items)) = path.split_once("::") else { continue };
        for item in items.trim_matches(['{', '}', ' ', '\n']).split(',') {
            let name = item.rsplit(" as ").next().unwrap_or_default();
            exports.insert(name.trim().to_owned(), module.trim().to_owned());
        }
    }
    exports
}

/// The siblings that a file names by a path from `super`, its unit tests aside.
fn siblings_in(text: &str, siblings: &[&str], exports: &BTreeMap<String, String>) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let names = names_behind("super::", code).into_iter();
    let names = names.map(|name| exports.get(&name).cloned().unwrap_or(name));
    names.filter(|name| siblings.contains(&name.as_str())).collect()
}

/// The modules that a file names by a path from `crate`.
fn imports_in(text: &str) -> BTreeSet<String> {
    names_behind("crate::", text)
}

/// The first names of paths that begin with `root`.
fn names_behind(root: &str, text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    let mut rest = code.as_str();
    while let Some(index) = rest.find(root) {
        let starts_a_word = !rest[..index].ends_with(|last: char| last.is_alphanumeric() || last == '_');
        rest = &rest[index + root.len()..];
        if !starts_a_word {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(group) => names.extend(first_names(group)),
            None => names.extend([word(rest)]),
        }
    }
    names.remove("");
    names
}

/// The first name of each part of `a::{b, c}, d}…`.
fn first_names(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => parts.push(String::new()),
            _ => {}
        }
        if let Some(part) = parts.last_mut()
            && character != ','
        {
            part.push(character);
        }
    }
    parts.iter().map(|part| word(part.trim_start())).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn violations(imports: &Imports) -> Vec<String> {
    let mut found = Vec::new();
    for (module, names) in imports.iter().filter(|(module, _)| !TOP.contains(&module.as_str())) {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == module) else {
            found.push(format!("`{module}` is not in the table"));
            continue;
        };
        let wrong = names.iter().filter(|name| *name != "telemetry" && !allowed.contains(&name.as_str()));
        found.extend(wrong.map(|name| format!("`{module}` imports `{name}`")));
    }
    found
}

/// A way from a module back to one that was passed already.
fn cycle(imports: &Imports) -> Option<String> {
    fn walk(module: &str, way: &mut Vec<String>, imports: &Imports) -> Option<String> {
        let seen = way.iter().any(|passed| passed == module);
        way.push(module.to_owned());
        if seen {
            return Some(way.join(" → "));
        }
        let found = imports.get(module).into_iter().flatten().find_map(|name| walk(name, way, imports));
        way.pop();
        found
    }
    imports.keys().find_map(|module| walk(module, &mut Vec::new(), imports))
}
