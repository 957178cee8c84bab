//! The published schema is the one that the types give.

use maintenance_page::MaintenancePage;
use shared::schema;

#[test]
fn the_published_schema_is_up_to_date() {
    let to_run = schema::outdated::<MaintenancePage>(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert_eq!(to_run, None);
}
