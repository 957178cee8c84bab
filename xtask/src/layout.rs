//! The rules that every remediation and every crate keeps, so that the next one is a checklist and not a search.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{cargo, output};
use crate::template::Template;
use crate::workspace::root;
use crate::{Error, Result, functions};

/// The files of a remediation's crate, in the order its data flows.
const SOURCES: [&str; 5] = ["main.rs", "lib.rs", "policy.rs", "plan.rs", "aws.rs"];

/// What every function does with the ledger.
const LEDGER_ACTIONS: [&str; 5] = [
    "BatchGetItem",
    "ConditionCheckItem",
    "DeleteItem",
    "PutItem",
    "Query",
];

/// Checks the whole checkout.
pub async fn check() -> Result<()> {
    let template = Template::read()?;
    let mut problems = Vec::new();
    for name in functions::names()? {
        problems.extend(of_remediation(&root(), &name, &template));
    }
    for manifest in manifests().await? {
        let text = fs::read_to_string(&manifest).map_err(Error::file("read", &manifest))?;
        if !inherits_lints(&text) {
            problems.push(format!(
                "{} lacks [lints] workspace = true",
                manifest.display()
            ));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Layout { problems })
    }
}

/// The manifests of all workspace crates.
async fn manifests() -> Result<Vec<PathBuf>> {
    let mut metadata = cargo();
    metadata.current_dir(root()).args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--locked",
    ]);
    let text = output(&mut metadata).await?;
    let metadata: Value = serde_json::from_str(&text).map_err(|source| Error::Json {
        path: "the answer of cargo metadata".into(),
        source,
    })?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages
        .filter_map(|package| package["manifest_path"].as_str())
        .map(PathBuf::from)
        .collect())
}

/// What one remediation lacks.
#[must_use]
pub fn of_remediation(root: &Path, name: &str, template: &Template) -> Vec<String> {
    let mut problems = Vec::new();
    let mut require = |holds: bool, what: String| {
        if !holds {
            problems.push(format!("{name}: {what}"));
        }
    };

    let sources = root.join("functions").join(name).join("src");
    for file in SOURCES {
        require(
            sources.join(file).is_file(),
            format!("functions/{name}/src/{file} is missing"),
        );
    }
    require(
        has_json(&root.join("events").join(name)),
        format!("events/{name}/ holds no .json file"),
    );
    let page = format!("docs/remediations/{name}.md");
    require(root.join(&page).is_file(), format!("{page} is missing"));

    let prefix = pascal_case(name);
    let role = format!("{prefix}FunctionRole");
    let wanted: [(String, &str, Vec<String>); 3] = [
        (
            format!("{prefix}Function"),
            "AWS::Serverless::Function",
            vec![
                "BuildMethod: rust-cargolambda".to_owned(),
                format!("Binary: {name}"),
                format!("CodeUri: functions/{name}/"),
                format!("Role: !GetAtt {role}.Arn"),
                "Type: Schedule".to_owned(),
            ],
        ),
        (
            role.clone(),
            "AWS::IAM::Role",
            LEDGER_ACTIONS
                .map(|action| format!("- dynamodb:{action}"))
                .into(),
        ),
        (format!("{prefix}Policy"), "AWS::SSM::Parameter", Vec::new()),
    ];
    for (resource, kind, lines) in wanted {
        let Some(block) = template.resource(&resource) else {
            require(false, format!("template.yaml defines no {resource}"));
            continue;
        };
        require(
            has_line(&block, &format!("Type: {kind}")),
            format!("{resource} is no {kind}"),
        );
        for line in lines {
            require(
                has_line(&block, &line),
                format!("{resource} lacks the line `{line}`"),
            );
        }
        require(
            !block.contains("ManagedPolicyArns"),
            format!("{resource} uses a managed policy instead of statements of its own"),
        );
    }
    problems
}

fn has_line(block: &str, wanted: &str) -> bool {
    block.lines().any(|line| line.trim() == wanted)
}

fn has_json(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "json")
        })
    })
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]");
    lines.next().is_some()
        && lines
            .take_while(|line| !line.starts_with('['))
            .any(|line| line == "workspace = true")
}

/// `dlq-replay` as a template resource is named: `DlqReplay`.
#[must_use]
pub fn pascal_case(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    name.split('-').filter_map(capital).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "\
Resources:
  TakeOverPolicy:
    Type: AWS::SSM::Parameter
  TakeOverFunctionRole:
    Type: AWS::IAM::Role
    Properties:
      Policies:
        - dynamodb:BatchGetItem
        - dynamodb:ConditionCheckItem
        - dynamodb:DeleteItem
        - dynamodb:PutItem
        - dynamodb:Query
  TakeOverFunction:
    Type: AWS::Serverless::Function
    Metadata:
      BuildMethod: rust-cargolambda
      BuildProperties:
        Binary: take-over
    Properties:
      CodeUri: functions/take-over/
      Role: !GetAtt TakeOverFunctionRole.Arn
      Events:
        Look:
          Type: Schedule
";

    /// A checkout with one remediation that keeps every rule.
    fn checkout() -> tempfile::TempDir {
        let checkout = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = checkout.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        for file in SOURCES {
            write(&format!("functions/take-over/src/{file}"));
        }
        write("events/take-over/ServiceDown.alarm.json");
        write("docs/remediations/take-over.md");
        checkout
    }

    fn problems(checkout: &tempfile::TempDir, template: &str) -> Vec<String> {
        of_remediation(checkout.path(), "take-over", &Template::from(template))
    }

    #[test]
    fn a_complete_remediation_has_no_problem() {
        assert_eq!(problems(&checkout(), TEMPLATE), Vec::<String>::new());
    }

    #[test]
    fn every_missing_file_is_named() {
        for path in [
            "functions/take-over/src/plan.rs",
            "events/take-over/ServiceDown.alarm.json",
            "docs/remediations/take-over.md",
        ] {
            let checkout = checkout();
            fs::remove_file(checkout.path().join(path)).unwrap();
            assert_eq!(problems(&checkout, TEMPLATE).len(), 1, "{path}");
        }
    }

    #[test]
    fn every_line_of_the_template_counts() {
        let checkout = checkout();
        for line in TEMPLATE.lines().filter(|line| !line.ends_with(':')) {
            assert!(
                !problems(&checkout, &TEMPLATE.replace(line, "")).is_empty(),
                "{line}"
            );
        }
        let managed = TEMPLATE.replace(
            "Type: AWS::IAM::Role",
            "Type: AWS::IAM::Role\n    ManagedPolicyArns: []",
        );
        assert_eq!(problems(&checkout, &managed).len(), 1);
    }

    #[test]
    fn lints_must_be_the_workspaces() {
        assert!(inherits_lints(
            "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"
        ));
        assert!(!inherits_lints(
            "[lints]\n\n[dependencies]\nworkspace = true\n"
        ));
        assert!(!inherits_lints("[package]\nversion.workspace = true\n"));
    }

    #[test]
    fn resource_names_are_the_folders_in_pascal_case() {
        assert_eq!(pascal_case("dlq-replay"), "DlqReplay");
        assert_eq!(pascal_case("rollback"), "Rollback");
    }
}
