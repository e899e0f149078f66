//! Writes the manual page to standard output: `cargo run --example man > debshrew.1`. It is made from the command line's
//! own help, a section a command.

use std::io::{Result, Write, stdout};

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

fn main() -> Result<()> {
    let mut out = stdout().lock();
    let command = debshrew::cli::command();
    let man = Man::new(command.clone());
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    for sub in command.get_subcommands() {
        let title = format!("debshrew {}", sub.get_name());
        let mut roff = Roff::new();
        roff.control("SH", [title.to_uppercase().as_str()]);
        let about = sub.get_long_about().or_else(|| sub.get_about());
        roff.text([roman(about.map(ToString::to_string).unwrap_or_default())]);
        for argument in sub.get_arguments().filter(|argument| !argument.is_global_set()) {
            let Some(flag) = argument.get_long() else { continue };
            let takes = argument.get_action().takes_values();
            let value = argument.get_value_names().filter(|_| takes).and_then(|names| names.first());
            let value = value.map(|name| format!(" {name}")).unwrap_or_default();
            roff.control("TP", []);
            roff.text([bold(format!("--{flag}")), roman(value)]);
            roff.text([roman(argument.get_help().map(ToString::to_string).unwrap_or_default())]);
        }
        roff.to_writer(&mut out)?;
    }
    let mut files = Roff::new();
    files.control("SH", ["FILES"]);
    files.control("TP", []);
    files.text([bold("/etc/debshrew/debshrew.toml")]);
    files.text([roman("What the service debshrew.service follows, and into which tables.")]);
    files.control("TP", []);
    files.text([bold("/etc/debshrew/database.url")]);
    files.text([roman("The database's URL, which the service gets as a credential. Root's alone.")]);
    files.control("SH", ["SEE ALSO"]);
    files.text([roman("The manual is in /usr/share/doc/debshrew.")]);
    files.to_writer(&mut out)?;
    man.render_extra_section(&mut out)?;
    out.flush()
}
