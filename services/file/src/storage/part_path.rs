//! Paths of part objects: `parts/<file>/<part>`.

use object_store::path::Path;
use uuid::Uuid;

/// Prefix of all part objects.
pub(super) const PARTS: &str = "parts";

pub(super) fn all_parts() -> Path {
    Path::from(PARTS)
}

pub(super) fn parts_of(file: Uuid) -> Path {
    all_parts().join(file.to_string())
}

pub(super) fn part_path(file: Uuid, part_id: Uuid) -> Path {
    parts_of(file).join(part_id.to_string())
}

/// Returns the file id and part id of a path, or `None` for the path of another object.
pub(super) fn parse_part_path(path: &Path) -> Option<(Uuid, Uuid)> {
    let (directory, part) = path.as_ref().rsplit_once('/')?;
    let (_, file) = directory.rsplit_once('/')?;
    Some((file.parse().ok()?, part.parse().ok()?))
}
