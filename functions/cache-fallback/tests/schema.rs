//! The published schema is the one that the types give.

use cache_fallback::CacheFallback;
use shared::schema;

#[test]
fn the_published_schema_is_up_to_date() {
    let to_run = schema::outdated::<CacheFallback>(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert_eq!(to_run, None);
}
