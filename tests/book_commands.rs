//! The manual's commands: each `ria …` and `ria-coordinator …` in any page, and in the programs' own help, is one that the
//! programs take. Nothing is run here; `tests/book.rs` does that for the first steps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Command, CommandFactory};

const PROGRAMS: [&str; 2] = ["ria", "ria-coordinator"];

/// What has `ria` among its arguments for another reason: as a service, package or group, or as a verb of its own.
const OTHERS: [&str; 12] = [
    "adduser",
    "apt",
    "apt-get",
    "cargo",
    "chown",
    "gpasswd",
    "groupadd",
    "install",
    "journalctl",
    "ros2",
    "systemctl",
    "usermod",
];

/// Languages of blocks that are no commands.
const FILES: [&str; 3] = ["toml", "yaml", "json"];

/// What stands for anything where a word is a placeholder, such as N or ADDRESS.
const SAMPLES: [&str; 7] = [
    "1",
    "lab",
    "1h",
    "192.0.2.0/24",
    "192.0.2.1",
    "https://ria.lab.example",
    // 32 bytes of base64.
    "cmlhIGlzIGEgc2VjdXJlIG92ZXJsYXkgbmV0d29yay4=",
];

fn definition(program: &str) -> Command {
    if program == "ria" { ria::command() } else { ria_coordinator::cli::Cli::command() }
}

/// A command of one of the programs, with where it stands.
struct Found {
    place: String,
    /// The program first.
    words: Vec<String>,
    /// In running text a command may be named without what it needs.
    is_mention: bool,
}

/// What clap says to words; placeholders may stand for whatever it takes.
fn parse(words: &[String]) -> Result<(), Error> {
    let Err(error) = definition(&words[0]).try_get_matches_from(words) else { return Ok(()) };
    let is_verb = told(&error, ContextKind::InvalidSubcommand).is_some_and(is_placeholder);
    if is_verb || matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Ok(());
    }
    if !is_about_a_value(&error) {
        return Err(error);
    }
    let Some(value) = told(&error, ContextKind::InvalidValue) else { return Err(error) };
    let place = words.iter().position(|word| *word == value || word.ends_with(&format!("={value}")));
    let Some(place) = place.filter(|_| is_placeholder(value)) else { return Err(error) };
    for sample in SAMPLES {
        let mut words = words.to_vec();
        words[place] = words[place].replace(value, sample);
        match parse(&words) {
            // Something else in the command may be what is wrong.
            Err(other) if is_about_a_value(&other) => {}
            said => return said,
        }
    }
    Err(error)
}

fn is_about_a_value(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
}

fn told(error: &Error, what: ContextKind) -> Option<&str> {
    match error.get(what) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// N, SECONDS, <name>, $ID, ….
fn is_placeholder(word: &str) -> bool {
    let is_upper = |c: char| c.is_ascii_uppercase() || "_-.:/".contains(c);
    word.contains(['<', '$', '…']) || !word.is_empty() && word.chars().all(is_upper)
}

/// Whether clap takes a command, else why not.
fn check(found: &Found) -> Result<(), String> {
    let Err(error) = parse(&found.words) else { return Ok(()) };
    let lacks_something = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) || error.kind() == ErrorKind::InvalidValue
        && told(&error, ContextKind::InvalidValue) == Some("");
    if found.is_mention && lacks_something {
        return Ok(());
    }
    Err(format!("{}: {}\n  {}", found.place, found.words.join(" "), error.to_string().replace('\n', "\n  ")))
}

/// A line of a shell taken apart into simple commands, those in quotes and in `$(…)` too.
#[derive(Default)]
struct Shell {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
    /// The next word is a file of a redirection.
    is_file: bool,
}

impl Shell {
    fn read(line: &str) -> Vec<Vec<String>> {
        let mut shell = Self::default();
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            rest = shell.take(first, rest);
        }
        shell.end_command();
        shell.commands
    }

    /// Takes what begins with `first`; returns what follows.
    fn take<'a>(&mut self, first: char, rest: &'a str) -> &'a str {
        let behind = &rest[first.len_utf8()..];
        match first {
            '\'' | '"' => {
                let (quoted, behind) = behind.split_once(first).unwrap_or((behind, ""));
                self.nested(quoted);
                self.word().push_str(quoted);
                behind
            }
            '$' if behind.starts_with('(') => {
                let (inner, behind) = behind[1..].split_once(')').unwrap_or((&behind[1..], ""));
                self.nested(inner);
                self.word().push_str("$(…)");
                behind
            }
            '#' if self.word.is_none() => "",
            '<' if is_bracketed(behind) => {
                let (name, behind) = behind.split_once('>').unwrap();
                self.word().push_str(&format!("<{name}>"));
                behind
            }
            '<' | '>' => {
                // 2> is one, too.
                if self.word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
                    self.word = None;
                }
                self.end_word();
                self.is_file = true;
                behind.trim_start_matches(['<', '>', '&'])
            }
            // Inside a word it parts alternatives.
            '|' if self.word.is_some() => {
                self.word().push(first);
                behind
            }
            ';' | '|' | '&' | '(' | ')' => {
                self.end_command();
                behind
            }
            _ if first.is_whitespace() => {
                self.end_word();
                behind
            }
            _ => {
                self.word().push(first);
                behind
            }
        }
    }

    fn word(&mut self) -> &mut String {
        self.word.get_or_insert_default()
    }

    fn nested(&mut self, text: &str) {
        if PROGRAMS.iter().any(|program| text.contains(program)) {
            self.commands.extend(Self::read(text));
        }
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.is_file)
        {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.is_file = false;
        self.commands.push(std::mem::take(&mut self.words));
    }
}

/// Whether what follows a `<` is a placeholder such as `<name>`.
fn is_bracketed(behind: &str) -> bool {
    let name = behind.split('>').next().unwrap_or_default();
    behind.contains('>') && !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c))
}

/// The commands of the two programs in a line, from the program's name on.
fn commands(line: &str) -> Vec<Vec<String>> {
    let each = Shell::read(line).into_iter().filter_map(|words| {
        let name = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
        let start = words.iter().position(|word| PROGRAMS.contains(&name(word).as_str()))?;
        let (before, command) = words.split_at(start);
        let is_other = before.iter().any(|word| OTHERS.contains(&word.as_str()));
        let words = command.iter().map(|word| word.trim_start_matches('[').trim_end_matches(']').to_owned());
        let mut words: Vec<String> = words.filter(|word| !word.is_empty() && word != "…").collect();
        words[0] = name(&words[0]);
        (!is_other && words.len() > 1).then_some(words)
    });
    each.flat_map(alternatives).collect()
}

/// The commands that one with a word such as `list|show` stands for.
fn alternatives(words: Vec<String>) -> Vec<Vec<String>> {
    let Some(place) = words.iter().position(|word| word.contains('|')) else { return vec![words] };
    let each = words[place].split('|').flat_map(|word| {
        let mut words = words.clone();
        words[place] = word.to_owned();
        alternatives(words)
    });
    each.collect()
}

/// A page taken apart: lines of code, each with the language of its block, and the text between.
struct Page {
    code: Vec<(usize, String, String)>,
    text: String,
}

impl Page {
    fn of(page: &str) -> Self {
        let (mut code, mut text) = (Vec::new(), String::new());
        let mut block: Option<String> = None;
        for (number, line) in page.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, &block) {
                (Some(language), None) => block = Some(language.to_owned()),
                (Some(_), Some(_)) => block = None,
                (None, Some(language)) => code.push((number + 1, language.clone(), line.to_owned())),
                (None, None) if line.starts_with("    ") => {
                    code.push((number + 1, String::new(), line.to_owned()));
                }
                (None, None) => text.push_str(line),
            }
            // As many lines as the page has, so that places can be told.
            text.push('\n');
        }
        Self { code, text }
    }

    /// Lines that are commands, the parts of those that go on behind a backslash put together.
    fn lines(&self) -> Vec<(usize, String)> {
        let mut lines: Vec<(usize, String)> = Vec::new();
        let mut goes_on = false;
        for (number, language, line) in &self.code {
            let language = language.split(',').next().unwrap_or_default();
            // What a program prints has no prompt before it; pictures are drawn with lines.
            let line = match language {
                "console" => line.strip_prefix("$ ").or(line.strip_prefix("# ")).unwrap_or_default(),
                _ if FILES.contains(&language) || line.contains(|c| ('─'..='╿').contains(&c)) => "",
                _ => line,
            };
            let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
            match lines.last_mut().filter(|_| goes_on) {
                Some((_, whole)) => whole.push_str(part),
                None => lines.push((*number, part.to_owned())),
            }
            goes_on = more;
        }
        lines
    }

    /// Code within the text that begins with one of the programs.
    fn mentions(&self) -> Vec<(usize, String)> {
        let mut number = 1;
        let mut found = Vec::new();
        for (n, part) in self.text.split('`').enumerate() {
            let words = part.trim_start_matches("sudo ");
            if n % 2 == 1 && PROGRAMS.iter().any(|program| words.starts_with(&format!("{program} "))) {
                found.push((number, part.replace('\n', " ")));
            }
            number += part.matches('\n').count();
        }
        found
    }

    fn commands(&self, name: &str) -> Vec<Found> {
        let lines = self.lines().into_iter().map(|line| (line, false));
        let mentions = self.mentions().into_iter().map(|line| (line, true));
        let each = lines.chain(mentions).flat_map(|((number, line), is_mention)| {
            let place = format!("{name}:{number}");
            commands(&line).into_iter().map(move |words| Found { place: place.clone(), words, is_mention })
        });
        each.collect()
    }
}

/// All pages for people.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directories = ["", "docs", "docs/decisions", "netlab", "launch", "api", "docker", "packaging"];
    let entries = directories.iter().flat_map(|directory| fs::read_dir(root.join(directory)).unwrap());
    let pages = entries.map(|entry| entry.unwrap().path());
    pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

#[test]
fn the_programs_take_every_command_of_the_manual() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = pages().into_iter().flat_map(|path| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        Page::of(&fs::read_to_string(&path).unwrap()).commands(&name)
    });
    let found: Vec<Found> = found.collect();
    let wrong: Vec<String> = found.iter().filter_map(|one| check(one).err()).collect();
    assert!(wrong.is_empty(), "{} commands that nobody can give:\n{}", wrong.len(), wrong.join("\n"));
    for (program, is_mention, at_least) in [
        ("ria", false, 60),
        ("ria", true, 120),
        ("ria-coordinator", false, 25),
        ("ria-coordinator", true, 20),
    ] {
        let count =
            found.iter().filter(|one| one.words[0] == program && one.is_mention == is_mention).count();
        assert!(count >= at_least, "{program}: only {count} commands found (in running text: {is_mention})");
    }
}

/// Examples at the end of a command's help and of its own commands' help.
fn examples(command: &Command, place: &str) -> Vec<Found> {
    let place = format!("{place} {}", command.get_name());
    let texts = [command.get_after_help(), command.get_after_long_help()];
    let lines = texts.into_iter().flatten().flat_map(|text| commands_of_help(&text.to_string()));
    let own = lines.map(|words| Found { place: format!("help of{place}"), words, is_mention: false });
    let theirs = command.get_subcommands().flat_map(|command| examples(command, &place));
    own.chain(theirs).collect()
}

/// Examples are indented; some have a place before them.
fn commands_of_help(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let examples = text.lines().filter(|line| line.starts_with("  "));
    examples.flat_map(commands).collect()
}

#[test]
fn the_programs_take_the_examples_of_their_help() {
    let found: Vec<Found> = PROGRAMS.iter().flat_map(|program| examples(&definition(program), "")).collect();
    let wrong: Vec<String> = found.iter().filter_map(|one| check(one).err()).collect();
    assert!(wrong.is_empty(), "{} examples that nobody can give:\n{}", wrong.len(), wrong.join("\n"));
    assert!(found.len() >= 60, "only {} examples found", found.len());
}

#[test]
fn commands_are_found_wherever_they_stand_and_mistakes_in_them_are_told() {
    let page = "\
Have it leave by `ria leave\n--yes`; `ria ping` needs a peer, `ria pings|up` is none.\n\
```sh\n\
sudo ria join --file lab.key > log 2>&1   # ria nonsense\n\
docker compose exec -T coordinator ria-coordinator key create \\\n    --reusable > lab.key\n\
ssh robot-7 'source setup.bash && eval \"$(ria env --format file)\" && ros2 ria watch'\n\
ria status --jsn | head\n\
sudo systemctl restart ria now\n\
```\n\
Text.\n\n    ria ping PEER [-c N] [-i SECONDS]\n\n\
```console\n$ ria wait --peers two\nria nonsense\n```\n\
```toml\n# ria nonsense\n```\n";
    let found = Page::of(page).commands("page");
    let texts: Vec<String> =
        found.iter().map(|one| format!("{} {}", one.place, one.words.join(" "))).collect();
    let expected = [
        "page:4 ria join --file lab.key",
        "page:5 ria-coordinator key create --reusable",
        "page:7 ria env --format file",
        "page:8 ria status --jsn",
        "page:13 ria ping PEER -c N -i SECONDS",
        "page:16 ria wait --peers two",
        "page:1 ria leave --yes",
        "page:2 ria ping",
        "page:2 ria pings",
        "page:2 ria up",
    ];
    assert_eq!(texts, expected);
    let wrong: Vec<String> = found.iter().filter_map(|one| check(one).err()).collect();
    let places: Vec<&str> = wrong.iter().map(|text| text.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["page:8", "page:16", "page:2"], "{wrong:?}");
    assert!(wrong[0].contains("--json"), "clap knows better: {}", wrong[0]);
}
