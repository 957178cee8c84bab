//! What a policy has the page say, in the characters that each front can carry. Pure.
//!
//! Before an API the page's text comes from stage variables, whose values have letters, digits and `-._~:/?#&=,` alone
//! (Amazon API Gateway API Reference, `CreateStage`) and at most 512 characters (API Gateway Developer Guide, "Quotas for
//! configuring and running a REST API in API Gateway"), and nothing there escapes what is put into the page. So every
//! character that is not plain is written as a character reference without its semicolon, which a browser reads as well
//! (HTML Standard, "Numeric character reference end state").

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the page says where the policy does not.
pub const TITLE: &str = "We will be back soon";
/// The same, below it.
pub const MESSAGE: &str = "This service is down while we mend a fault. Nothing that you sent before is lost; please try again later.";
/// Characters of a stage variable's value.
const VARIABLE: usize = 512;
/// Characters of a title.
const LONGEST_TITLE: usize = 80;
/// Characters of a message.
const LONGEST_MESSAGE: usize = 400;
/// Characters of a link.
const LONGEST_LINK: usize = 200;
/// A week.
const LONGEST_ESTIMATE: u32 = 7 * 24 * 60;

/// What the page says to its readers. What is not given is as in the template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wording {
    /// The page's heading, at most 80 characters of plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text below it, at most 400 characters of plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// An `https` link to where readers are told more, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_url: Option<String>,
    /// When the service is expected back, in minutes after the page goes up, 1 to 10,080. The page says when that time has
    /// passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_end_minutes: Option<NonZeroU32>,
}

impl Wording {
    /// Whether the page says what the template has it say.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what no page can say.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, text, longest) in [
            ("title", &self.title, LONGEST_TITLE),
            ("message", &self.message, LONGEST_MESSAGE),
            ("status_url", &self.status_url, LONGEST_LINK),
        ] {
            let Some(text) = text else { continue };
            let length = text.chars().count();
            if text.trim().is_empty() || length > longest {
                return Err(format!(
                    "page.{name} has {length} characters; give 1 to {longest}, or leave it out"
                ));
            }
            if text.chars().any(char::is_control) {
                return Err(format!(
                    "page.{name} has a line break or another control character; give one line of plain text"
                ));
            }
        }
        if let Some(url) = &self.status_url {
            let parsed: Option<http::Uri> = url.parse().ok();
            let https = parsed.is_some_and(|uri| {
                uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
            });
            if !https {
                return Err(format!(
                    "page.status_url is {url:?}; give an https URL, as in \"https://status.example.com/\""
                ));
            }
        }
        match self.estimated_end_minutes {
            Some(minutes) if minutes.get() > LONGEST_ESTIMATE => Err(format!(
                "page.estimated_end_minutes is {minutes}; it must be 1 to {LONGEST_ESTIMATE}"
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what does not fit into the variables of a stage.
    pub(crate) fn check_variables(&self) -> Result<(), String> {
        for (name, text) in [
            ("title", &self.title),
            ("message", &self.message),
            ("status_url", &self.status_url),
        ] {
            let length = text.as_deref().map_or(0, |text| as_variable(text).len());
            if length > VARIABLE {
                return Err(format!(
                    "page.{name} comes to {length} characters as a stage variable, where a space counts as four and every other character but letters, digits and -._~:/?=, as four to eight; {VARIABLE} are the most: make it shorter"
                ));
            }
        }
        Ok(())
    }

    /// How much of a key-value store's value it takes, as JSON.
    pub(crate) fn length(&self) -> usize {
        serde_json::to_string(self).map_or(0, |text| text.len())
    }
}

/// A text in the characters of a stage variable. In a page it is that text and nothing else: neither a tag nor another
/// reference begins in it. A digit after a reference would belong to it, and is written as one itself.
#[must_use]
pub fn as_variable(text: &str) -> String {
    let mut variable = String::new();
    let mut referred = false;
    for character in text.chars() {
        let plain = character.is_ascii_alphabetic()
            || (character.is_ascii_digit() && !referred)
            || "-._~:/?=,".contains(character);
        if plain {
            variable.push(character);
        } else {
            variable.push_str("&#");
            variable.push_str(&u32::from(character).to_string());
        }
        referred = !plain;
    }
    variable
}

/// The text that a variable was made of. What was not made so is taken as it is.
#[must_use]
pub fn of_variable(variable: &str) -> String {
    let mut parts = variable.split("&#");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len()
            - part
                .trim_start_matches(|it: char| it.is_ascii_digit())
                .len();
        let (number, rest) = part.split_at(digits);
        if let Some(character) = number.parse().ok().and_then(char::from_u32) {
            text.push(character);
        } else {
            text.push_str("&#");
            text.push_str(number);
        }
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_plain_is_a_reference() {
        let cases = [
            ("soon", "soon"),
            ("We are back", "We&#32are&#32back"),
            ("at 9:30", "at&#32&#57:30"),
            ("<b>&amp;", "&#60b&#62&#38amp&#59"),
            ("it\u{2019}s \u{1f6e0}", "it&#8217s&#32&#128736"),
            ("https://a/?b=1&copy=2#c", "https://a/?b=1&#38copy=2&#35c"),
        ];
        for (text, variable) in cases {
            assert_eq!(as_variable(text), variable);
        }
        assert_eq!(of_variable("&#x41 &#99999999 &#"), "&#x41 &#99999999 &#");
    }

    /// The page has the same words whichever front shows it, and whether or not a policy gives some.
    #[test]
    fn the_template_says_the_same_where_the_policy_says_nothing() {
        let template = include_str!("../../../template.yaml");
        for (name, text) in [("title", TITLE), ("message", MESSAGE)] {
            assert!(template.contains(&format!("{name}: \"{}\"\n", as_variable(text))));
            assert!(template.contains(&format!("text(notice.{name}, '{text}')")));
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_from_the_characters_of_a_variable(text in any::<String>()) {
            let variable = as_variable(&text);
            let allowed = |it: char| it.is_ascii_alphanumeric() || "-._~:/?#&=,".contains(it);
            prop_assert!(variable.chars().all(allowed), "{}", variable);
            prop_assert_eq!(of_variable(&variable), text);
        }
    }

    #[test]
    fn what_no_page_can_say_is_refused_by_name() {
        type Change = fn(&mut Wording);
        let cases: [(Change, &str); 7] = [
            (
                |it| it.title = Some(" ".to_owned()),
                "page.title has 1 characters",
            ),
            (|it| it.title = Some("x".repeat(81)), "give 1 to 80"),
            (|it| it.message = Some("x".repeat(401)), "give 1 to 400"),
            (|it| it.message = Some("one\ntwo".to_owned()), "line break"),
            (
                |it| it.status_url = Some("http://a/".to_owned()),
                "give an https URL",
            ),
            (
                |it| it.status_url = Some("javascript:alert(1)".to_owned()),
                "give an https URL",
            ),
            (
                |it| it.estimated_end_minutes = NonZeroU32::new(10_081),
                "1 to 10080",
            ),
        ];
        for (change, words) in cases {
            let mut wording = Wording::default();
            wording.check().unwrap();
            change(&mut wording);
            let error = wording.check().unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
        let spaces = Wording {
            message: Some("\u{e9}".repeat(200)),
            ..Wording::default()
        };
        spaces.check().unwrap();
        let error = spaces.check_variables().unwrap_err();
        assert!(error.contains("comes to 1000 characters"), "{error}");
    }
}
