//! Rulesets as the text nft reads: a whole table, or what changes between two.

use std::fmt::Write;

use super::ruleset::{Chain, Family, Ruleset, Table};

/// Elements per command; longer lines only cost memory.
const BATCH: usize = 500;

/// Removes a table whether or not it exists.
pub fn removal(family: Family, table: &str) -> String {
    let ip = family.name();
    format!("add table {ip} {table}\ndelete table {ip} {table}\n")
}

impl Ruleset {
    /// Replaces the table by this ruleset.
    pub fn whole(&self, family: Family, table: &str) -> String {
        let mut text = Text::new(family, table);
        text.out = removal(family, table);
        let _ = writeln!(text.out, "add table {}", text.path);
        for (name, one) in &self.tables {
            text.declare(name, one);
        }
        for (name, chain) in &self.chains {
            text.declare_chain(name, chain);
        }
        for (name, chain) in &self.chains {
            text.fill(name, chain);
        }
        for (name, one) in &self.tables {
            text.elements("add", name, one, one.elements.keys());
        }
        text.out
    }

    /// Turns `old` into this ruleset; empty when nothing changes.
    pub fn difference(&self, old: &Self, family: Family, table: &str) -> String {
        let mut text = Text::new(family, table);
        for (name, one) in self.tables.iter().filter(|(name, _)| !old.tables.contains_key(*name)) {
            text.declare(name, one);
        }
        for (name, chain) in self.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name))
        {
            text.declare_chain(name, chain);
        }
        for (name, chain) in &self.chains {
            match old.chains.get(name) {
                Some(known) if known == chain => {}
                Some(_) => {
                    let _ = writeln!(text.out, "flush chain {} {name}", text.path);
                    text.fill(name, chain);
                }
                None => text.fill(name, chain),
            }
        }
        for (name, one) in &old.tables {
            let kept = self.tables.get(name);
            let gone = one.elements.iter().filter(|(key, value)| {
                kept.is_some_and(|kept| kept.elements.get(*key) != Some(*value))
            });
            text.elements("delete", name, one, gone.map(|(key, _)| key));
        }
        for (name, one) in &self.tables {
            let known = old.tables.get(name);
            let fresh = one.elements.iter().filter(|(key, value)| {
                known.is_none_or(|known| known.elements.get(*key) != Some(*value))
            });
            text.elements("add", name, one, fresh.map(|(key, _)| key));
        }
        // Nothing leads to these any more. They are emptied first: they may lead to each other.
        let gone: Vec<&String> =
            old.chains.keys().filter(|name| !self.chains.contains_key(*name)).collect();
        for command in ["flush", "delete"] {
            for name in &gone {
                let _ = writeln!(text.out, "{command} chain {} {name}", text.path);
            }
        }
        for (name, one) in old.tables.iter().filter(|(name, _)| !self.tables.contains_key(*name)) {
            let _ = writeln!(text.out, "delete {} {} {name}", one.kind, text.path);
        }
        text.out
    }
}

struct Text {
    path: String,
    out: String,
}

// Writing to a String cannot fail; the results below are dropped for that reason.
impl Text {
    fn new(family: Family, table: &str) -> Self {
        Self { path: format!("{} {table}", family.name()), out: String::new() }
    }

    fn declare(&mut self, name: &str, one: &Table) {
        let _ =
            writeln!(self.out, "add {} {} {name} {{ {} }}", one.kind, self.path, one.declaration);
    }

    fn declare_chain(&mut self, name: &str, chain: &Chain) {
        let hook = chain.hook.map(|hook| format!(" {{ {hook} }}")).unwrap_or_default();
        let _ = writeln!(self.out, "add chain {} {name}{hook}", self.path);
    }

    fn fill(&mut self, name: &str, chain: &Chain) {
        for rule in &chain.rules {
            let _ = writeln!(self.out, "add rule {} {name} {rule}", self.path);
        }
    }

    fn elements<'a>(
        &mut self,
        command: &str,
        name: &str,
        one: &Table,
        keys: impl Iterator<Item = &'a String>,
    ) {
        let keys: Vec<&String> = keys.collect();
        for batch in keys.chunks(BATCH) {
            let texts: Vec<String> = batch
                .iter()
                .map(|key| match one.elements.get(*key).filter(|value| !value.is_empty()) {
                    Some(value) => format!("{key} : {value}"),
                    None => (*key).clone(),
                })
                .collect();
            let _ = writeln!(
                self.out,
                "{command} element {} {name} {{ {} }}",
                self.path,
                texts.join(", ")
            );
        }
    }
}
