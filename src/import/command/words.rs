//! A command line as words, and words as flags.

/// Splits a line as a shell does: quotes, backslashes, and a backslash before a line's end.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(format!("the quote {c} is not closed")),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(other) => word.push(other),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some('\r') => {
                    chars.next();
                }
                Some(other) => word.get_or_insert_default().push(other),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The flags of a command line that are left to be told.
#[derive(Debug)]
pub(super) struct Flags {
    /// Each with the values that followed it.
    flags: Vec<Flag>,
    all: Vec<String>,
}

#[derive(Debug, Clone)]
struct Flag {
    /// Without dashes, with `-` between its words.
    name: String,
    values: Vec<String>,
    taken: bool,
}

/// Values that are no flags, though they begin with a dash: negative numbers.
fn is_flag(word: &str) -> bool {
    word.starts_with('-')
        && word.len() > 1
        && !word[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

impl Flags {
    pub(super) fn new(words: &[String]) -> Self {
        let mut flags: Vec<Flag> = Vec::new();
        for word in words {
            if is_flag(word) {
                let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
                let name = name.trim_start_matches('-').replace('_', "-");
                let values = value.into_iter().map(str::to_owned).collect();
                flags.push(Flag { name, values, taken: false });
            } else if let Some(flag) = flags.last_mut() {
                flag.values.push(word.clone());
            } else {
                flags.push(Flag { name: word.clone(), values: Vec::new(), taken: false });
            }
        }
        Self { flags, all: words.to_vec() }
    }

    /// The arguments as they were written, without what may be a secret.
    pub(super) fn shown(&self) -> String {
        let mut hidden = false;
        let words = self.all.iter().map(|word| {
            let secret = |name: &str| ["key", "token", "header", "-H"].iter().any(|part| name.contains(part));
            let (name, has_value) =
                word.split_once('=').map_or((word.as_str(), false), |(name, _)| (name, true));
            let own = std::mem::replace(
                &mut hidden,
                is_flag(word) && secret(name) && !name.contains("token-") && !name.ends_with("tokens"),
            );
            match (is_flag(word), own) {
                (false, true) => "...".to_owned(),
                (true, _) if has_value && hidden => format!("{name}=..."),
                _ if word.contains(char::is_whitespace) || word.contains('"') => {
                    format!("'{}'", word.replace('\n', " "))
                }
                _ => word.clone(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Every value of a flag by any of its names, in order; `None` where it does not stand. Of one that stands twice, the
    /// last counts.
    pub(super) fn values(&mut self, names: &[&str]) -> Option<Vec<String>> {
        let mut found = None;
        for flag in self.flags.iter_mut().filter(|flag| names.contains(&flag.name.as_str())) {
            flag.taken = true;
            found = Some(flag.values.clone());
        }
        found
    }

    /// All values of a flag that may stand several times.
    pub(super) fn every(&mut self, names: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for flag in self.flags.iter_mut().filter(|flag| names.contains(&flag.name.as_str())) {
            flag.taken = true;
            found.extend(flag.values.clone());
        }
        found
    }

    /// The value of a flag that has one.
    pub(super) fn value(&mut self, names: &[&str]) -> Result<Option<String>, String> {
        match self.values(names) {
            None => Ok(None),
            Some(values) => match <[String; 1]>::try_from(values) {
                Ok([value]) => Ok(Some(value)),
                Err(values) if values.is_empty() => Err(format!("--{} lacks its value", names[0])),
                Err(values) => Err(format!("--{} takes one value, not {}", names[0], values.join(" "))),
            },
        }
    }

    pub(super) fn is_there(&mut self, names: &[&str]) -> bool {
        self.values(names).is_some()
    }

    /// A number of 0 or more.
    pub(super) fn number(&mut self, names: &[&str]) -> Result<Option<f64>, String> {
        let Some(text) = self.value(names)? else { return Ok(None) };
        number(names[0], &text).map(Some)
    }

    /// A whole number of at least `least`.
    pub(super) fn count(&mut self, names: &[&str], least: u64) -> Result<Option<u64>, String> {
        let Some(text) = self.value(names)? else { return Ok(None) };
        let count = text.parse().ok().filter(|count| *count >= least);
        count
            .map(Some)
            .ok_or_else(|| format!("--{} takes a whole number of at least {least}, not {text}", names[0]))
    }

    /// What no one took, with values, as it was written.
    pub(super) fn rest(&self) -> Vec<String> {
        let left = self.flags.iter().filter(|flag| !flag.taken);
        let shown = |flag: &Flag| {
            let dashes = if flag.name.len() == 1 { "-" } else { "--" };
            std::iter::once(format!("{dashes}{}", flag.name))
                .chain(flag.values.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        left.map(shown).collect()
    }
}

/// A number of 0 or more; `inf` is one.
pub(super) fn number(flag: &str, text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|number| *number >= 0.0);
    number.ok_or_else(|| format!("--{flag} takes a number, not {text}"))
}
