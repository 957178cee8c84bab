//! The events that the tests read, and how they change them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde_json::Value;
use shared::alarm::{self, AlarmEvent};

pub(crate) fn events() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
}

/// Every event file below `events/`, by its path from there.
pub(crate) fn files() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in std::fs::read_dir(events())
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let name = file
                .strip_prefix(events())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.insert(name, std::fs::read(&file).unwrap());
        }
    }
    found
}

pub(crate) fn event(file: &str) -> AlarmEvent {
    alarm::parse_slice(&std::fs::read(events().join(file)).unwrap()).unwrap()
}

pub(crate) fn json(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(events().join(file)).unwrap()).unwrap()
}

pub(crate) fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The event that the tables below change.
pub(crate) fn base() -> Value {
    json("dlq-replay/IngestionErrorRateHigh.alarm.json")
}

/// The base event with the value at a JSON pointer replaced, or removed where `None` is given;
/// in a list, `null` takes its place.
pub(crate) fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut event = base();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(object), Some(value)) => _ = object.insert(key.to_owned(), value),
        (Value::Object(object), None) => _ = object.remove(key),
        (Value::Array(list), value) => {
            list[key.parse::<usize>().unwrap()] = value.unwrap_or_default();
        }
        (other, _) => panic!("{pointer} does not lead through {other}"),
    }
    event
}
