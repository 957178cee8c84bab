//! Why an event is refused, and how its own text is repeated safely in saying so.

use serde_json::Value;
use thiserror::Error;

/// What can be sent instead.
pub(super) const SHAPES: &str = "an EventBridge event \"CloudWatch Alarm State Change\", an alarm's Lambda action \
                      (\"alarmData\"), or a playbook step's input (\"playbook\" and \"alarm\")";
/// How many characters of an event's own text an error repeats.
const SHOWN: usize = 60;

/// Why an event is not a change of an alarm's state that a remediation can answer.
///
/// Every message is one line, whatever the event holds: text from the event is escaped and shortened.
/// None of them passes when the same event is sent again.
#[derive(Debug, Error)]
pub enum AlarmError {
    /// The bytes are not JSON.
    #[error(
        "the event is not JSON (line {line}, column {column}): send it as EventBridge or CloudWatch wrote it"
    )]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1, or 0 before the first.
        column: usize,
        /// What the JSON parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The document is a list, a text or the like.
    #[error("the event is {found}: send {}", SHAPES)]
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// An object of none of the accepted shapes.
    #[error(
        "the event, with the keys {keys}, has no shape that is known: send {}",
        SHAPES
    )]
    UnknownShape {
        /// Its keys.
        keys: String,
    },
    /// A playbook step's input inside another.
    #[error(
        "{path} is itself a playbook step's input: hand on the alarm's event alone, \
         such as \"alarm.$\": \"$.alarm\""
    )]
    NestedPlaybook {
        /// Where it is.
        path: String,
    },
    /// An event of another service, or an application's own.
    #[error(
        "{path} is \"{source_name}\", and remediations answer \"aws.cloudwatch\" only: \
         narrow the rule's \"source\" to [\"aws.cloudwatch\"]"
    )]
    ForeignSource {
        /// Where it is.
        path: String,
        /// The source.
        source_name: String,
    },
    /// An alarm was created, edited or deleted.
    #[error(
        "\"CloudWatch Alarm Configuration Change\" says that the alarm {alarm} was edited (operation {operation}), \
         not that its state changed: narrow the rule's \"detail-type\" to [\"CloudWatch Alarm State Change\"]"
    )]
    ConfigurationChange {
        /// The alarm.
        alarm: String,
        /// What was done to it.
        operation: String,
    },
    /// One time series of an alarm changed its state.
    #[error(
        "the event is about one contributor ({contributor}) of the alarm {alarm}, and remediations answer the \
         alarm as a whole: use a rule whose \"detail-type\" is [\"CloudWatch Alarm State Change\"]"
    )]
    ContributorStateChange {
        /// The alarm.
        alarm: String,
        /// The contributor's id.
        contributor: String,
    },
    /// Another event of `CloudWatch`.
    #[error(
        "{path} is \"{detail_type}\": narrow the rule's \"detail-type\" to [\"CloudWatch Alarm State Change\"]"
    )]
    ForeignDetailType {
        /// Where it is.
        path: String,
        /// The detail type.
        detail_type: String,
    },
    /// A field without which the change cannot be known.
    #[error("{path} is missing: it should be {form}")]
    MissingField {
        /// Where it should be.
        path: String,
        /// The form it should have.
        form: &'static str,
    },
    /// A field that says which change it is, in a form that cannot be read.
    #[error("{path} is {found}: it should be {form}")]
    MalformedField {
        /// Where it is.
        path: String,
        /// What it holds.
        found: String,
        /// The form it should have.
        form: &'static str,
    },
    /// The event contradicts itself about which alarm it is about.
    #[error(
        "{name_path} is \"{name}\" but {arn_path} names the alarm \"{arn_name}\": both should name one alarm; \
         send the event as EventBridge or CloudWatch wrote it"
    )]
    NameMismatch {
        /// Where the name is.
        name_path: String,
        /// The name.
        name: String,
        /// Where the ARN is.
        arn_path: String,
        /// The name in the ARN.
        arn_name: String,
    },
}

/// A value in a form that is safe to print: one line, short, without control characters.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => printable(&number.to_string()),
        Value::String(text) => format!("\"{}\"", printable(text)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(object) => format!("an object of {} members", object.len()),
    }
}

/// An optional name in a form that is safe to print.
pub(super) fn described(value: Option<&Value>) -> String {
    value.map_or_else(|| "unknown".to_owned(), shown)
}

/// The first names of an object's members.
pub(super) fn keys(object: &Value) -> String {
    let keys: Vec<&str> = object
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .take(10)
        .collect();
    if keys.is_empty() {
        "(none)".to_owned()
    } else {
        printable(&keys.join(", "))
    }
}

/// A text with everything but printable characters escaped, cut to a length.
pub(super) fn printable(text: &str) -> String {
    let mut printed = String::new();
    let mut length = 0;
    for character in text.chars() {
        // An apostrophe is escaped for the sake of Rust's own literals only.
        let escaped: String = match character {
            '\'' => "'".to_owned(),
            _ => character.escape_debug().collect(),
        };
        length += escaped.chars().count();
        if length > SHOWN {
            printed.push('…');
            break;
        }
        printed.push_str(&escaped);
    }
    printed
}
