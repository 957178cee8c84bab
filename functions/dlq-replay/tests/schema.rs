//! The published schema is the one that the types give.

use dlq_replay::DlqReplay;
use shared::schema;

#[test]
fn the_published_schema_is_up_to_date() {
    let to_run = schema::outdated::<DlqReplay>(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert_eq!(to_run, None);
}
