//! `cargo xtask new`: a remediation that compiles, deploys and keeps every rule from the first day, and acts on nothing yet.

use std::fs;
use std::path::Path;

use crate::command::{cargo, run_quietly};
use crate::layout::pascal_case;
use crate::progress::Progress;
use crate::workspace::root;
use crate::{Error, Result, template};

/// The files of a new remediation, by their path in the checkout. Paths and contents hold placeholders.
const FILES: [(&str, &str); 10] = [
    (
        "functions/{{name}}/Cargo.toml",
        include_str!("../scaffold/Cargo.toml.in"),
    ),
    (
        "functions/{{name}}/src/main.rs",
        include_str!("../scaffold/src/main.rs.in"),
    ),
    (
        "functions/{{name}}/src/lib.rs",
        include_str!("../scaffold/src/lib.rs.in"),
    ),
    (
        "functions/{{name}}/src/error.rs",
        include_str!("../scaffold/src/error.rs.in"),
    ),
    (
        "functions/{{name}}/src/policy.rs",
        include_str!("../scaffold/src/policy.rs.in"),
    ),
    (
        "functions/{{name}}/src/plan.rs",
        include_str!("../scaffold/src/plan.rs.in"),
    ),
    (
        "functions/{{name}}/src/aws.rs",
        include_str!("../scaffold/src/aws.rs.in"),
    ),
    (
        "events/{{name}}/{{Pascal}}Needed.alarm.json",
        include_str!("../scaffold/alarm.json.in"),
    ),
    (
        "events/{{name}}/{{Pascal}}Needed.ok.json",
        include_str!("../scaffold/ok.json.in"),
    ),
    (
        "docs/remediations/{{name}}.md",
        include_str!("../scaffold/page.md.in"),
    ),
];

/// What a new remediation adds to the template's resources.
const RESOURCES: &str = include_str!("../scaffold/resources.yaml.in");

/// What it adds to the template's outputs.
const OUTPUTS: &str = include_str!("../scaffold/outputs.yaml.in");

/// The template's column at which its section headings end.
const HEADING_WIDTH: usize = 92;

/// The longest name: resources of AWS are named after it, with more in front and behind.
const LONGEST_NAME: usize = 40;

/// What a crate cannot be named: Rust's keywords, and the crates that come with the compiler.
const RESERVED: &str = "abstract alloc as async await become box break const continue core crate do dyn else enum \
    extern false final fn for gen if impl in let loop macro match mod move mut override priv \
    proc-macro pub ref return self static std struct super test trait true try type typeof \
    unsafe unsized use virtual where while";

/// Adds a remediation to the checkout.
pub async fn new(name: &str) -> Result<()> {
    let progress = Progress::new("new");
    for path in generate(&root(), name)? {
        progress.say(format_args!("wrote {path}"));
    }
    // How long the name is decides where rustfmt breaks some lines.
    run_quietly(cargo().current_dir(root()).args(["fmt", "--package", name])).await?;
    // Resolving writes the new package into Cargo.lock and moves no version.
    run_quietly(
        cargo()
            .current_dir(root())
            .args(["metadata", "--format-version", "1"]),
    )
    .await?;
    progress.say("wrote Cargo.lock");
    progress.say(format_args!(
        "docs/remediations/{name}.md says what is left to fill in"
    ));
    Ok(())
}

/// Writes the files of a new remediation and its part of the template, or nothing; gives the paths written.
fn generate(root: &Path, name: &str) -> Result<Vec<String>> {
    let refused = |why: String| Error::RemediationName {
        name: name.to_owned(),
        why,
    };
    let name = Name::new(name).map_err(refused)?;
    let files = FILES.map(|(path, text)| (name.fill(path), name.fill(text)));
    name.check_free(root, &files)?;
    let path = root.join(template::FILE);
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let grown = name.insert_into(&text)?;
    for (path, text) in &files {
        let path = root.join(path);
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        fs::write(&path, text).map_err(Error::file("write", path))?;
    }
    fs::write(&path, grown).map_err(Error::file("write", path))?;
    let written = files.into_iter().map(|(path, _)| path);
    Ok(written.chain([template::FILE.to_owned()]).collect())
}

/// A remediation's name in the spellings that the scaffold needs.
struct Name {
    kebab: String,
    snake: String,
    pascal: String,
}

impl Name {
    /// Takes a name that can be a folder's, a crate's and a template resource's.
    fn new(name: &str) -> std::result::Result<Self, String> {
        let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let word = |word: &str| !word.is_empty() && word.chars().all(allowed);
        if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.split('-').all(word)
        {
            return Err(
                "use lower-case letters, digits and single hyphens, and begin with a letter, as in \"table-restore\""
                    .to_owned(),
            );
        }
        if name.len() > LONGEST_NAME {
            return Err(format!(
                "it has {} characters; use at most {LONGEST_NAME}",
                name.len()
            ));
        }
        if RESERVED.split(' ').any(|word| word == name) {
            return Err("Rust has a use of its own for it; take another".to_owned());
        }
        Ok(Self {
            kebab: name.to_owned(),
            snake: name.replace('-', "_"),
            pascal: pascal_case(name),
        })
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{{name}}", &self.kebab)
            .replace("{{snake}}", &self.snake)
            .replace("{{Pascal}}", &self.pascal)
    }

    fn taken(&self, why: String) -> Error {
        Error::RemediationName {
            name: self.kebab.clone(),
            why,
        }
    }

    /// Refuses a name that something in the checkout has already. Nothing is ever overwritten.
    fn check_free(&self, root: &Path, files: &[(String, String)]) -> Result<()> {
        let Self { kebab, snake, .. } = self;
        let folders = [format!("functions/{kebab}"), format!("events/{kebab}")];
        let mut paths = folders.iter().chain(files.iter().map(|(path, _)| path));
        if let Some(path) = paths.find(|path| root.join(path).exists()) {
            return Err(self.taken(format!("{path} exists already")));
        }
        let lock = root.join("Cargo.lock");
        let packages = fs::read_to_string(&lock).map_err(Error::file("read", &lock))?;
        let same = packages
            .lines()
            .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
            .find(|package| package.replace('-', "_") == *snake);
        match same {
            Some(package) => Err(self.taken(format!(
                "{package} is a crate of the workspace or of its dependencies"
            ))),
            None => Ok(()),
        }
    }

    /// The template with the remediation's resources behind all others, and its outputs likewise.
    fn insert_into(&self, text: &str) -> Result<String> {
        let heading = format!("  # ---- Remediation: {} ", self.kebab);
        let resources = format!("{heading:-<HEADING_WIDTH$}\n\n{}", self.fill(RESOURCES));
        let outputs = self.fill(OUTPUTS);
        for (section, added) in [("Resources", &resources), ("Outputs", &outputs)] {
            let Some(present) = section_of(text, section) else {
                return Err(Error::Layout {
                    problems: vec![format!("{} has no section {section}", template::FILE)],
                });
            };
            let present: Vec<&str> = keys(present).collect();
            if let Some(key) = keys(added).find(|key| present.contains(key)) {
                return Err(self.taken(format!(
                    "{} has an entry {key} in its {section} already",
                    template::FILE
                )));
            }
        }
        Ok(append(
            &append(text, "Resources", &resources),
            "Outputs",
            &outputs,
        ))
    }
}

/// Where the lines of a top-level section of the template begin and end, its heading not included.
fn range_of(text: &str, section: &str) -> Option<std::ops::Range<usize>> {
    let heading = format!("\n{section}:\n");
    let begin = text.find(&heading)? + heading.len();
    let length = text[begin..]
        .split_inclusive('\n')
        .take_while(|line| !line.starts_with(|first: char| first.is_ascii_alphabetic()))
        .map(str::len)
        .sum::<usize>();
    Some(begin..begin + length)
}

fn section_of<'a>(text: &'a str, section: &str) -> Option<&'a str> {
    range_of(text, section).map(|range| &text[range])
}

/// Appends entries to a section, a blank line before resources and none before outputs.
fn append(text: &str, section: &str, added: &str) -> String {
    let Some(range) = range_of(text, section) else {
        return text.to_owned();
    };
    let (before, after) = (text[..range.end].trim_end(), &text[range.end..]);
    let gap = if section == "Resources" { "\n" } else { "" };
    let end = if after.is_empty() { "" } else { "\n" };
    format!("{before}\n{gap}{added}{end}{after}")
}

/// The keys of a section's entries.
fn keys(section: &str) -> impl Iterator<Item = &str> {
    section.lines().filter_map(|line| {
        let key = line.strip_prefix("  ")?.strip_suffix(':')?;
        key.chars()
            .all(|letter| letter.is_ascii_alphanumeric())
            .then_some(key)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use shared::policy::Document;

    use super::*;
    use crate::layout::of_remediation;
    use crate::template::Template;

    /// What the scaffold reads and changes of a checkout.
    fn checkout() -> tempfile::TempDir {
        let checkout = tempfile::tempdir().unwrap();
        for file in [template::FILE, "Cargo.lock"] {
            fs::copy(root().join(file), checkout.path().join(file)).unwrap();
        }
        checkout
    }

    fn template_of(checkout: &tempfile::TempDir) -> String {
        fs::read_to_string(checkout.path().join(template::FILE)).unwrap()
    }

    fn refusal(checkout: &tempfile::TempDir, name: &str) -> String {
        match generate(checkout.path(), name) {
            Err(error @ Error::RemediationName { .. }) => error.to_string(),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_name_is_kebab_case() {
        let checkout = checkout();
        for name in [
            "",
            "Take",
            "takeOver",
            "take_over",
            "take over",
            "-take",
            "take-",
            "take--over",
            "2-take",
            "täke",
            "../take",
            "take/over",
        ] {
            let error = refusal(&checkout, name);
            assert!(error.contains("lower-case letters"), "{error}");
        }
        assert!(refusal(&checkout, &"a".repeat(41)).contains("use at most 40"));
        assert!(refusal(&checkout, "match").contains("Rust has a use"));
    }

    #[test]
    fn a_name_that_is_taken_is_refused_and_nothing_is_written() {
        let checkout = checkout();
        let before = template_of(&checkout);
        assert!(refusal(&checkout, "xtask").contains("crate of the workspace"));
        assert!(refusal(&checkout, "serde-json").contains("crate of the workspace"));
        assert!(refusal(&checkout, "dlq-replay").contains("crate of the workspace"));
        assert_eq!(template_of(&checkout), before);
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        for path in [
            "functions/take-over/Cargo.toml",
            "events/take-over/ServiceDown.alarm.json",
            "docs/remediations/take-over.md",
        ] {
            let checkout = checkout();
            let before = template_of(&checkout);
            let kept = checkout.path().join(path);
            fs::create_dir_all(kept.parent().unwrap()).unwrap();
            fs::write(&kept, "kept").unwrap();
            assert!(refusal(&checkout, "take-over").contains("exists already"));
            assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
            assert_eq!(template_of(&checkout), before);
        }
    }

    #[test]
    fn two_names_with_the_same_resources_do_not_go_together() {
        let checkout = checkout();
        generate(checkout.path(), "take-2").unwrap();
        assert!(refusal(&checkout, "take2").contains("Take2NeededAlarm"));
    }

    #[test]
    fn a_new_remediation_keeps_every_rule_of_the_layout() {
        let checkout = checkout();
        let written = generate(checkout.path(), "take-over").unwrap();
        assert_eq!(written.len(), FILES.len() + 1);
        let template = Template::from(template_of(&checkout).as_str());
        assert_eq!(
            of_remediation(checkout.path(), "take-over", &template),
            Vec::<String>::new()
        );
        for path in written {
            let text = fs::read_to_string(checkout.path().join(&path)).unwrap();
            let left: Vec<_> = ["{{name}}", "{{snake}}", "{{Pascal}}"]
                .into_iter()
                .filter(|placeholder| text.contains(placeholder))
                .collect();
            assert!(left.is_empty(), "{path} holds {left:?}");
        }
    }

    #[test]
    fn the_template_grows_and_holds_everything_once() {
        let checkout = checkout();
        let before = template_of(&checkout);
        for name in ["take-over", "hand-back"] {
            generate(checkout.path(), name).unwrap();
        }
        let after = template_of(&checkout);
        for (section, added) in [("Resources", 12), ("Outputs", 12)] {
            let old: Vec<_> = keys(section_of(&before, section).unwrap()).collect();
            let new: Vec<_> = keys(section_of(&after, section).unwrap()).collect();
            let once: BTreeSet<_> = new.iter().collect();
            assert_eq!(once.len(), new.len(), "{new:?}");
            assert_eq!(new[..old.len()], old);
            assert_eq!(new.len(), old.len() + added);
        }
        let lines: BTreeSet<_> = after.lines().collect();
        assert!(before.lines().all(|line| lines.contains(line)));
        assert!(!after.contains("\n\n\n") && after.ends_with('\n') && !after.ends_with("\n\n"));
    }

    #[test]
    fn the_policy_in_the_template_can_be_read() {
        let name = Name::new("take-over").unwrap();
        let resources = name.fill(RESOURCES);
        let (_, value) = resources.split_once("Value: !Sub |\n").unwrap();
        let (value, _) = value.split_once("\n\n").unwrap();
        let value = value.replace("${MaximumEventAgeInSeconds}", "900").replace(
            "${TakeOverNeededAlarm.Arn}",
            "arn:aws:cloudwatch:r:1:alarm:a",
        );
        assert!(!value.contains("${"), "{value}");
        let document: Document<Value> = serde_json::from_str(&value).unwrap();
        assert_eq!(document.targets[0].name, "take-over");
        assert_eq!(document.targets[0].alarms.len(), 1);
    }

    #[test]
    fn the_events_are_read_as_their_names_say() {
        let name = Name::new("take-over").unwrap();
        for (path, text) in FILES {
            let (path, text) = (name.fill(path), name.fill(text));
            let Some(state) = path.strip_suffix(".json") else {
                continue;
            };
            let (_, state) = state.rsplit_once('.').unwrap();
            let event = shared::alarm::parse_slice(text.as_bytes()).unwrap();
            assert_eq!(event.alarm_name, "TakeOverNeeded");
            assert_eq!(event.state.as_str().to_lowercase(), state);
        }
    }
}
