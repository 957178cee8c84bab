//! Whatever bytes wake a function: it reads an alarm's change, or says in one line why it cannot.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

mod json;

// The module itself, instead of the library it belongs to, keeps the AWS SDKs out of an instrumented build.
#[allow(
    dead_code,
    unused_imports,
    reason = "the target calls one of its functions"
)]
#[path = "../../shared/src/alarm/mod.rs"]
mod alarm;

use alarm::{AlarmError, AlarmEvent};

fuzz_target!(|bytes: &[u8]| {
    match alarm::parse_slice(bytes) {
        Ok(event) => accepted(&event),
        Err(error) => refused(&error),
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // One change in four is of bytes, for what is not JSON, or not quite.
    let mutated = if seed.is_multiple_of(4) {
        None
    } else {
        json::mutated(&data[..size], seed)
    };
    match mutated {
        Some(bytes) if bytes.len() <= max_size => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

fn refused(error: &AlarmError) {
    let text = error.to_string();
    let length = text.chars().count();
    assert!((1..=400).contains(&length), "{length} characters: {text}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

fn accepted(event: &AlarmEvent) {
    let AlarmEvent {
        alarm_arn,
        region,
        account,
        alarm_name,
        ..
    } = event;
    let end = format!(":cloudwatch:{region}:{account}:alarm:{alarm_name}");
    assert!(
        alarm_arn.starts_with("arn:aws") && alarm_arn.ends_with(&end),
        "{event:?}"
    );
    assert!(
        !event.transition_key().chars().any(|c| c.is_ascii_control()),
        "{event:?}"
    );
    if let Some(by) = &event.suppressed_by {
        assert!(!by.to_string().chars().any(char::is_control), "{by}");
    }
    let kept = serde_json::to_string(event).expect("an event can be written down");
    let read: AlarmEvent = serde_json::from_str(&kept).expect("and read again");
    assert_eq!(read.transition_key(), event.transition_key());
}
