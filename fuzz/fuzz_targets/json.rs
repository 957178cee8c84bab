//! Changes a JSON document by its structure, where changes of single bytes would mostly break the syntax.

use serde_json::Value;

/// Texts that mean something in an alarm's event, or that parsers stumble over.
const TEXTS: [&str; 26] = [
    "",
    " ",
    "a\u{0}\n\r\u{7f}\u{85}",
    "\u{202e}\u{2028}\u{feff}\u{10ffff}",
    "é漢字🚨",
    "None",
    "true",
    "OK",
    "ALARM",
    "INSUFFICIENT_DATA",
    "WaitPeriod",
    "aws.cloudwatch",
    "CloudWatch Alarm State Change",
    "CloudWatch Alarm Configuration Change",
    "CloudWatch Alarm Contributor State Change",
    "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:a:b",
    "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:",
    "arn:aws:states:eu-west-1:123456789012:execution:a:b",
    "123456789012",
    "cn-north-1",
    "+0000",
    "2026-11-02T09:26:53.589+0000",
    "2026-12-31T23:59:60Z",
    "0000-00-00T00:00:00-9999",
    "ANOMALY_DETECTION_BAND(m1, 2)",
    "SELECT x FROM y",
];

const KEYS: [&str; 26] = [
    "alarm",
    "playbook",
    "step",
    "dry_run",
    "approvals",
    "target",
    "plan_hash",
    "transition",
    "by",
    "at",
    "expires_at",
    "alarmData",
    "detail",
    "detail-type",
    "resources",
    "alarmArn",
    "accountId",
    "alarmName",
    "alarmContributor",
    "state",
    "timestamp",
    "actionsSuppressedBy",
    "actionsSuppressedReason",
    "muteDetail",
    "mutedByArn",
    "muteWindowEnd",
];

/// A source of choices that gives the same ones for the same seed (xorshift).
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or_default()
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

/// The document with one to four of its values changed, or `None` when it is not JSON.
pub fn mutated(bytes: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let mut choices = Choices((u64::from(seed) << 1 | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for _ in 0..=choices.below(4) {
        let whole = document.clone();
        let steps = choices.below(count(&document));
        let place = nth(&mut document, &mut { steps })?;
        change(place, &whole, &mut choices);
    }
    serde_json::to_vec(&document).ok()
}

fn inner(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(object) => Box::new(object.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn count(value: &Value) -> usize {
    1 + inner(value).map(count).sum::<usize>()
}

/// The value that comes after `steps` others.
fn nth<'a>(value: &'a mut Value, steps: &mut usize) -> Option<&'a mut Value> {
    if *steps == 0 {
        return Some(value);
    }
    *steps -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|inner| nth(inner, steps)),
        Value::Object(object) => object.values_mut().find_map(|inner| nth(inner, steps)),
        _ => None,
    }
}

fn change(place: &mut Value, whole: &Value, choices: &mut Choices) {
    match choices.below(8) {
        0 => *place = Value::Null,
        1 => *place = Value::Bool(choices.below(2) == 0),
        2 => *place = [0, 1, -1, i64::MIN, i64::MAX][choices.below(5)].into(),
        3 => *place = choices.one_of(&TEXTS).into(),
        4 => {
            let steps = choices.below(count(whole));
            if let Some(other) = nth(&mut whole.clone(), &mut { steps }) {
                *place = other.clone();
            }
        }
        5 => {
            let old = std::mem::take(place);
            *place = match choices.below(3) {
                0 => Value::Array(vec![old]),
                1 => serde_json::json!({choices.one_of(&KEYS): old}),
                _ => old.to_string().into(),
            };
        }
        _ => edit(place, choices),
    }
}

/// A change that keeps the value's type.
fn edit(place: &mut Value, choices: &mut Choices) {
    match place {
        Value::String(text) => {
            let mut letters: Vec<char> = text.chars().collect();
            let at = choices.below(letters.len() + 1);
            match choices.below(3) {
                0 => letters.truncate(at),
                1 => drop(letters.drain(..at)),
                _ => drop(letters.splice(at..at, choices.one_of(&TEXTS).chars())),
            }
            *text = letters.into_iter().collect();
        }
        Value::Array(list) => match choices.below(2) {
            0 => list.clear(),
            _ => list.push(choices.one_of(&TEXTS).into()),
        },
        Value::Object(object) => {
            let old: Vec<String> = object.keys().cloned().collect();
            if choices.below(2) == 0 && !old.is_empty() {
                object.remove(&old[choices.below(old.len())]);
            } else {
                let value = choices.one_of(&TEXTS).into();
                object.insert(choices.one_of(&KEYS).to_owned(), value);
            }
        }
        _ => *place = Value::Object(serde_json::Map::new()),
    }
}
