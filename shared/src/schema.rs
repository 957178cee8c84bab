//! The JSON Schema of each remediation's policy, as it is published below `docs/policy/`.

use std::fs;
use std::io;
use std::path::Path;

use crate::policy;
use crate::remediation::Remediation;

/// Set to write the schema instead of comparing it.
const UPDATE: &str = "FORGEGUARD_UPDATE_SCHEMA";

/// Compares the published schema of `R` with the one that its types give; gives what to run where they differ.
///
/// For the test of a remediation, whose manifest is in `manifest_dir`.
pub fn outdated<R: Remediation>(manifest_dir: &str) -> io::Result<Option<String>> {
    let name = R::NAME;
    let path = Path::new(manifest_dir).join(format!("../../docs/policy/{name}.schema.json"));
    let text = format!("{:#}\n", policy::schema::<R::Action>());
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &text)?;
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    Ok((published != text).then(|| format!("{UPDATE}=1 cargo test -p {name} --test schema")))
}
