//! The published schema is the one that the types give.

use std::path::Path;

use maintenance_page::policy::Page;

/// Set to write the schema instead of comparing it.
const UPDATE: &str = "FORGEGUARD_UPDATE_SCHEMA";

#[test]
fn the_published_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/policy/maintenance-page.schema.json");
    let schema = shared::policy::schema::<Page>();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == text,
        "run FORGEGUARD_UPDATE_SCHEMA=1 cargo test -p maintenance-page --test schema"
    );
}
