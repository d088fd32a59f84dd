//! Prints the table of keys as a commented TOML file: the documentation that cannot be out of date.
//!
//! Invariant: the file parses to the defaults, and with the examples uncommented it still parses (both tested).
//! Neighbours: [`crate::keys`].

use crate::keys::{Key, LISTENERS_DEFAULT, Presence, SECTIONS, Section};
use crate::resolve::printed;
use crate::values::written;

/// The commented file of `headwater check --defaults`.
#[must_use]
pub fn defaults_file() -> String {
    let mut out = String::from(
        "# Headwater's configuration: every key, its meaning, what it can be, and its default.\n\
         # Defaults < this file < environment (HEADWATER_SECTION__KEY) < --set SECTION.KEY=VALUE.\n\
         # Lines that begin with `#` and a key are examples of what has no default.\n",
    );
    for section in &SECTIONS {
        print_section(section, &mut out);
    }
    out
}

fn print_section(section: &Section, out: &mut String) {
    out.push('\n');
    comment(section.doc, out);
    if section.name == "listener" {
        for key in printed(section.name) {
            comment(&format!("{}: {} ({})", key.name, key.doc, key.kind.describe()), out);
        }
        for (protocol, bind) in LISTENERS_DEFAULT {
            out.push_str(&format!("[[listener]]\nprotocol = \"{protocol}\"\nbind = \"{bind}\"\n"));
        }
        return;
    }
    if section.many {
        out.push_str(&format!("# [[{}]]\n", section.name));
    } else {
        out.push_str(&format!("[{}]\n", section.name));
    }
    for key in printed(section.name) {
        print_key(key, section.many, out);
    }
}

fn print_key(key: &Key, example: bool, out: &mut String) {
    comment(&format!("{} ({})", key.doc, key.kind.describe()), out);
    if key.kind == crate::keys::Kind::Tables {
        for inner in printed("uplink.topics") {
            comment(&format!("  {}: {} ({})", inner.name, inner.doc, inner.kind.describe()), out);
        }
    }
    match key.default {
        Presence::Default(value) if !example => out.push_str(&format!("{}\n", written(key, value))),
        Presence::Default(value) | Presence::Optional(value) | Presence::Required(value) => {
            out.push_str(&format!("# {}\n", written(key, value)));
        }
    }
}

/// Comments are set off with two spaces, so that an example is told from prose by its looks.
fn comment(text: &str, out: &mut String) {
    let mut line = String::new();
    for word in text.split(' ') {
        if line.chars().count() + word.chars().count() > 110 {
            out.push_str(&format!("#   {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&format!("#   {line}\n"));
}
