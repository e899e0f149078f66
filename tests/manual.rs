//! The manual against the code: what can be set and what can be asked for is all in it.

use std::fmt::Write;

use debshrew::change::binary::{Batch, Decoder};
use debshrew::change::{Change, Operation, Value};
use debshrew::config::KEYS;

fn page(name: &str) -> String {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_configuration_page_has_every_key() {
    let mut table = String::from("| key | form | default | meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        let default = match key.default {
            None | Some("") => String::new(),
            Some(default) => format!("`{default}`"),
        };
        writeln!(table, "| `{}` | {} | {default} | {} |", key.name, key.form, key.meaning).unwrap();
    }
    let page = page("configuration.md");
    assert!(page.contains(&table), "the table in docs/configuration.md is not this:\n\n{table}");
    let rows =
        page.lines().filter(|line| KEYS.iter().any(|key| line.contains(&format!("| `{}` |", key.name))));
    assert_eq!(rows.count(), KEYS.len(), "a key is in docs/configuration.md more than once");
}

#[test]
fn the_commands_page_has_every_command_flag_and_exit_code() {
    let page = page("commands.md");
    let root = debshrew::cli::command();
    let globals = root.get_arguments().filter(|flag| flag.is_global_set());
    let intro = page.split("\n## ").next().unwrap_or_default();
    for flag in globals.filter_map(|flag| flag.get_long()) {
        assert!(has_flag(intro, flag), "docs/commands.md does not begin with `--{flag}`");
    }
    for command in root.get_subcommands() {
        let name = command.get_name();
        let section = page
            .split("\n## ")
            .find(|section| section.lines().next() == Some(&format!("`debshrew {name}`")))
            .unwrap_or_else(|| panic!("docs/commands.md has no section `debshrew {name}`"));
        for flag in command.get_arguments().filter_map(|flag| flag.get_long()) {
            assert!(has_flag(section, flag), "docs/commands.md: `--{flag}` of {name} is missing");
        }
    }
    let help = root.get_after_help().unwrap().to_string();
    let codes: Vec<(&str, &str)> = help
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .filter(|(code, _)| code.parse::<u8>().is_ok())
        .collect();
    assert_eq!(codes.len(), 5);
    for (code, meaning) in codes {
        assert!(
            page.contains(&format!("| {code} | {meaning} |")),
            "docs/commands.md: exit code {code}: {meaning}"
        );
    }
}

/// Whether a text shows a flag, with a value's name behind it or without.
fn has_flag(text: &str, flag: &str) -> bool {
    [format!("`--{flag}`"), format!("`--{flag} ")].iter().any(|shown| text.contains(shown))
}

#[test]
fn the_example_of_records_in_the_transforms_page_is_what_it_says() {
    let page = page("transforms.md");
    let section = page.split("#### Values of records").nth(1).unwrap();
    let example = section.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    // Each line's explanation stands behind two spaces or more.
    let digits = example.lines().flat_map(|line| line.trim().split("  ").next()).collect::<String>();
    let bytes = hex::decode(digits.replace(' ', "")).unwrap();
    let (mut decoder, mut batch) = (Decoder::default(), Batch::new(&bytes));
    let mut changes = Vec::new();
    while let Some(change) = decoder.next(&mut batch).unwrap() {
        changes.push(change);
    }
    let change = |operation, columns| Change::new("balances", operation, None, columns);
    let columns = vec![("address", Value::Text("abc".into())), ("amount", Value::Integer(42))];
    let key = vec![("address", Value::Text("d".into()))];
    assert_eq!(changes, [change(Operation::Upsert, columns), change(Operation::Delete, key)]);
}
