//! The schema files: each belongs to exactly one event, and each event has one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use apache_avro::{Schema, rabin::Rabin};
use contracts::{
    billing_account::{self, BillingAccountEvent},
    file::{self, FileEvent},
    invoice::{self, InvoiceEvent},
    job::{self, JobEvent},
    job_configuration::{self, JobConfigurationEvent},
    organization::{self, OrganizationEvent},
    plan::{self, PlanEvent},
};
use epoch::event::{CodecError, DomainEvent, SchemaId};

/// The events of one aggregate.
pub(crate) struct Aggregate {
    pub(crate) name: &'static str,
    pub(crate) events: &'static [&'static str],
    is_readable: fn(&str, SchemaId) -> bool,
}

impl Aggregate {
    fn of<E: DomainEvent>(name: &'static str) -> Self {
        let is_readable = |event: &str, schema| {
            !matches!(
                E::decode_all(event, schema, &[]),
                Err(CodecError::UnknownEvent { .. }
                    | CodecError::UnknownSchema { .. }
                    | CodecError::InvalidSchema { .. })
            )
        };
        Self { name, events: E::NAMES, is_readable }
    }
}

/// All aggregates of the contracts.
pub(crate) fn aggregates() -> Vec<Aggregate> {
    vec![
        Aggregate::of::<OrganizationEvent>(organization::AGGREGATE),
        Aggregate::of::<JobConfigurationEvent>(job_configuration::AGGREGATE),
        Aggregate::of::<FileEvent>(file::AGGREGATE),
        Aggregate::of::<JobEvent>(job::AGGREGATE),
        Aggregate::of::<PlanEvent>(plan::AGGREGATE),
        Aggregate::of::<BillingAccountEvent>(billing_account::AGGREGATE),
        Aggregate::of::<InvoiceEvent>(invoice::AGGREGATE),
    ]
}

/// A path below `schemas/`: `<aggregate>/<Event>.avsc`, or `<aggregate>/<Event>.<n>.avsc` for an earlier version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SchemaPath {
    pub(crate) aggregate: String,
    pub(crate) event: String,
    pub(crate) earlier: Option<u32>,
}

impl SchemaPath {
    /// Parses a path. Returns `None` if it is not the path of a schema.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (aggregate, file) = path.split_once('/')?;
        let stem = file.strip_suffix(".avsc").filter(|stem| !stem.contains('/'))?;
        let (event, earlier) = match stem.split_once('.') {
            None => (stem, None),
            Some((event, number)) => (event, Some(number.parse().ok()?)),
        };
        Some(Self { aggregate: aggregate.to_owned(), event: event.to_owned(), earlier })
    }

    /// Returns whether the contracts decode this event from payloads written with `schema`.
    pub(crate) fn is_readable(&self, schema: &Schema) -> bool {
        aggregates().iter().any(|aggregate| {
            aggregate.name == self.aggregate && (aggregate.is_readable)(&self.event, fingerprint(schema))
        })
    }
}

/// A file below `schemas/`.
pub(crate) struct SchemaFile {
    pub(crate) name: String,
    pub(crate) path: SchemaPath,
    pub(crate) text: String,
    pub(crate) schema: Schema,
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns every `.avsc` file below `schemas/`, sorted by name.
pub(crate) fn files() -> Vec<SchemaFile> {
    let root = workspace().join("schemas");
    let mut names = Vec::new();
    list(&root, &root, &mut names);
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let path =
                SchemaPath::parse(&name).unwrap_or_else(|| panic!("schemas/{name} is not <aggregate>/<Event>.avsc"));
            let text = fs::read_to_string(root.join(&name)).unwrap();
            let schema = Schema::parse_str(&text).unwrap_or_else(|error| panic!("schemas/{name}: {error}"));
            SchemaFile { name, path, text, schema }
        })
        .collect()
}

fn list(root: &Path, directory: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, names);
        } else if path.extension().is_some_and(|extension| extension == "avsc") {
            names.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// Returns the fingerprint as `apache-avro` computes it, which verifies Epoch's own computation.
pub(crate) fn fingerprint(schema: &Schema) -> SchemaId {
    SchemaId::new(u64::from_le_bytes(schema.fingerprint::<Rabin>().bytes.as_slice().try_into().unwrap()))
}

#[test]
fn events_and_current_schemas_correspond_one_to_one() {
    let declared: Vec<String> = aggregates()
        .iter()
        .flat_map(|aggregate| aggregate.events.iter().map(move |event| format!("{}/{event}.avsc", aggregate.name)))
        .collect();
    let distinct: BTreeSet<_> = declared.iter().cloned().collect();
    assert_eq!(distinct.len(), declared.len(), "an event is declared twice: {declared:?}");

    let files = files();
    let current: BTreeSet<_> =
        files.iter().filter(|file| file.path.earlier.is_none()).map(|file| file.name.clone()).collect();
    // The file of a former event (`upcast`, `split` or a former name in `events!`) stays, because the event is still read.
    let readable: BTreeSet<_> =
        files.iter().filter(|file| file.path.is_readable(&file.schema)).map(|file| file.name.clone()).collect();
    let unused: Vec<_> = current.difference(&distinct).filter(|name| !readable.contains(*name)).collect();
    let missing: Vec<_> = distinct.difference(&current).collect();
    assert!(unused.is_empty(), "no event in contracts uses schemas/{unused:?}");
    assert!(missing.is_empty(), "events in contracts have no file: schemas/{missing:?}");

    for file in &files {
        assert!(file.path.is_readable(&file.schema), "schemas/{} is not listed in events!", file.name);
    }
}

#[test]
fn schemas_returns_every_schema_file() {
    let schemas = contracts::schemas();
    for file in files() {
        assert!(schemas.contains(&file.text.as_str()), "contracts::schemas() lacks schemas/{}", file.name);
    }
}

#[test]
fn schema_path_parses_versions_and_rejects_other_paths() {
    let path = |earlier| Some(SchemaPath { aggregate: "job".into(), event: "JobLost".into(), earlier });
    assert_eq!(SchemaPath::parse("job/JobLost.avsc"), path(None));
    assert_eq!(SchemaPath::parse("job/JobLost.2.avsc"), path(Some(2)));
    for other in ["JobLost.avsc", "job/JobLost.json", "job/old/JobLost.avsc", "job/JobLost.old.avsc"] {
        assert_eq!(SchemaPath::parse(other), None, "{other}");
    }
}
