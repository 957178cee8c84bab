//! The published schema is the one that the types give.

use alias_rollback::AliasRollback;
use shared::schema;

#[test]
fn the_published_schema_is_up_to_date() {
    let to_run = schema::outdated::<AliasRollback>(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert_eq!(to_run, None);
}
