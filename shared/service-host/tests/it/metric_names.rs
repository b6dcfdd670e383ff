//! `docs/operations/metrics.md` lists the metrics of the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn collect_sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Collects the sources of all crates in a directory; a crate may hold other crates.
fn collect_crates(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let member = entry.unwrap().path();
        if member.join("Cargo.toml").is_file() {
            collect_sources(&member.join("src"), files);
            collect_crates(&member, files);
        }
    }
}

/// Returns the metric names of a source file, without its tests.
fn names(source: &str) -> impl Iterator<Item = &str> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    ["counter!(", "gauge!(", "histogram!("].into_iter().flat_map(|kind| code.split(kind).skip(1)).filter_map(|rest| {
        let name = rest.trim_start().strip_prefix('"')?;
        name.split('"').next()
    })
}

#[test]
fn documented_metrics_match_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for group in ["shared", "services"] {
        collect_crates(&root.join(group), &mut files);
    }
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| names(text)).collect();
    assert!(
        used.contains("epoch_delivered_total") && used.contains("http_requests_total"),
        "no known metric was found in the sources"
    );
    let text = fs::read_to_string(root.join("docs/operations/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: Vec<&str> = rows.collect();
    assert_eq!(documented.len(), documented.iter().collect::<BTreeSet<_>>().len(), "a metric is listed twice");
    assert_eq!(documented.into_iter().collect::<BTreeSet<_>>(), used);
}
