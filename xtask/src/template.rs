//! What the tasks need to know of `template.yaml`, read from its text: its resources, and where their code is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::workspace::root;
use crate::{Error, Result};

/// The template's file, in the checkout's root.
pub const FILE: &str = "template.yaml";

/// How a function's block names its code; the function's folder follows.
const CODE_URI: &str = "CodeUri: functions/";

/// The text of `template.yaml`.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
}

impl Template {
    /// Reads the checkout's template.
    pub fn read() -> Result<Self> {
        let path = root().join(FILE);
        let text = fs::read_to_string(&path).map_err(Error::file("read", path))?;
        Ok(Self { text })
    }

    /// The lines of one resource, or `None` if the template does not define it.
    #[must_use]
    pub fn resource(&self, logical_id: &str) -> Option<String> {
        let heading = format!("  {logical_id}:");
        let mut lines = self
            .text
            .lines()
            .skip_while(|line| *line != "Resources:")
            .skip(1);
        let mut block = lines
            .by_ref()
            .take_while(|line| !starts_section(line))
            .skip_while(|line| *line != heading);
        block.next()?;
        let body: Vec<&str> = block
            .take_while(|line| line.is_empty() || line.starts_with("   "))
            .collect();
        Some(body.join("\n"))
    }

    /// The same template with every function's code in `artefacts`, one folder each, instead of in its crate.
    #[must_use]
    pub fn with_code_in(&self, artefacts: &Path) -> String {
        let mut text = String::with_capacity(self.text.len());
        for line in self.text.lines() {
            match line.trim_start().strip_prefix(CODE_URI) {
                Some(folder) => {
                    let indent = &line[..line.len() - line.trim_start().len()];
                    let folder = artefacts.join(folder.trim_end_matches('/'));
                    // Writing to a string cannot fail.
                    let _ = write!(text, "{indent}CodeUri: {}", folder.display());
                }
                None => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }
}

impl From<&str> for Template {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }
}

/// Whether a line begins the next top-level section.
fn starts_section(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Parameters:
  First:
    Type: String
Resources:
  # A comment.
  First:
    Type: AWS::SQS::Queue

    Properties: {}
  # Another.
  Second:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/second-one/
Outputs:
  Third:
    Value: 1
";

    fn template() -> Template {
        Template::from(TEXT)
    }

    #[test]
    fn a_resource_is_its_own_lines() {
        assert_eq!(
            template().resource("First").as_deref(),
            Some("    Type: AWS::SQS::Queue\n\n    Properties: {}")
        );
        assert!(
            template()
                .resource("Second")
                .is_some_and(|block| block.ends_with("CodeUri: functions/second-one/"))
        );
    }

    #[test]
    fn only_resources_count() {
        assert_eq!(template().resource("Third"), None);
        assert_eq!(template().resource("Sec"), None);
    }

    #[test]
    fn only_the_code_moves() {
        let moved = template().with_code_in(Path::new("/built"));
        assert_eq!(
            moved,
            TEXT.replace("functions/second-one/", "/built/second-one")
        );
    }
}
