//! Setting of the data directory.

use std::path::PathBuf;

/// Environment variable of the data directory.
pub(super) const DATA_DIR: &str = "CATACLOUD_DATA_DIR";

const DEFAULT_DATA_DIR: &str = ".dev/data";

/// Returns the data directory: the value of `CATACLOUD_DATA_DIR`, or `.dev/data` without one.
#[must_use]
pub fn data_dir() -> PathBuf {
    let configured = std::env::var_os(DATA_DIR).filter(|directory| !directory.is_empty());
    configured.map_or_else(|| DEFAULT_DATA_DIR.into(), PathBuf::from)
}
