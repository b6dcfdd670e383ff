//! Every schema file belongs to exactly one event, and every event has its file.

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
    reads: fn(&str, SchemaId) -> bool,
}

impl Aggregate {
    fn of<E: DomainEvent>(name: &'static str) -> Self {
        let reads = |event: &str, schema| {
            !matches!(
                E::decode_all(event, schema, &[]),
                Err(CodecError::UnknownEvent { .. }
                    | CodecError::UnknownSchema { .. }
                    | CodecError::InvalidSchema { .. })
            )
        };
        Self { name, events: E::NAMES, reads }
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

/// A path below `schemas/`: `<aggregate>/<Event>.avsc`, or `<aggregate>/<Event>.<n>.avsc` for an earlier version that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SchemaPath {
    pub(crate) aggregate: String,
    pub(crate) event: String,
    pub(crate) kept: Option<u32>,
}

impl SchemaPath {
    /// Takes the path apart; `None` when it isn't one of a schema.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (aggregate, file) = path.split_once('/')?;
        let stem = file.strip_suffix(".avsc").filter(|stem| !stem.contains('/'))?;
        let (event, kept) = match stem.split_once('.') {
            None => (stem, None),
            Some((event, number)) => (event, Some(number.parse().ok()?)),
        };
        Some(Self { aggregate: aggregate.to_owned(), event: event.to_owned(), kept })
    }

    /// Whether the contracts read what was written with `schema` as this event.
    pub(crate) fn is_read(&self, schema: &Schema) -> bool {
        aggregates()
            .iter()
            .any(|aggregate| aggregate.name == self.aggregate && (aggregate.reads)(&self.event, fingerprint(schema)))
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

/// Every `.avsc` below `schemas/`, in order.
pub(crate) fn files() -> Vec<SchemaFile> {
    let root = workspace().join("schemas");
    let mut names = Vec::new();
    list(&root, &root, &mut names);
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let path =
                SchemaPath::parse(&name).unwrap_or_else(|| panic!("schemas/{name} isn't <aggregate>/<Event>.avsc"));
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

/// Computed here, not with Epoch, so that each checks the other.
pub(crate) fn fingerprint(schema: &Schema) -> SchemaId {
    SchemaId::new(u64::from_le_bytes(schema.fingerprint::<Rabin>().bytes.as_slice().try_into().unwrap()))
}

#[test]
fn every_schema_belongs_to_one_event_and_every_event_has_one() {
    let declared: Vec<String> = aggregates()
        .iter()
        .flat_map(|aggregate| aggregate.events.iter().map(move |event| format!("{}/{event}.avsc", aggregate.name)))
        .collect();
    let distinct: BTreeSet<_> = declared.iter().cloned().collect();
    assert_eq!(distinct.len(), declared.len(), "an event is declared twice: {declared:?}");

    let files = files();
    let found: BTreeSet<_> =
        files.iter().filter(|file| file.path.kept.is_none()).map(|file| file.name.clone()).collect();
    // A former event, which is only read (`upcast`, `split` or a former name in `events!`), keeps its file.
    let former: BTreeSet<_> =
        files.iter().filter(|file| file.path.is_read(&file.schema)).map(|file| file.name.clone()).collect();
    let unused: Vec<_> = found.difference(&distinct).filter(|name| !former.contains(*name)).collect();
    let missing: Vec<_> = distinct.difference(&found).collect();
    assert!(unused.is_empty(), "no event in contracts uses schemas/{unused:?}");
    assert!(missing.is_empty(), "events in contracts have no file: schemas/{missing:?}");

    for file in &files {
        assert!(file.path.is_read(&file.schema), "contracts doesn't list schemas/{} in events!", file.name);
    }
}

#[test]
fn a_registry_can_be_told_of_every_schema() {
    let told = contracts::schemas();
    for file in files() {
        assert!(told.contains(&file.text.as_str()), "contracts::schemas() hasn't schemas/{}", file.name);
    }
}

#[test]
fn paths_are_taken_apart() {
    let path = |kept| Some(SchemaPath { aggregate: "job".into(), event: "JobLost".into(), kept });
    assert_eq!(SchemaPath::parse("job/JobLost.avsc"), path(None));
    assert_eq!(SchemaPath::parse("job/JobLost.2.avsc"), path(Some(2)));
    for other in ["JobLost.avsc", "job/JobLost.json", "job/old/JobLost.avsc", "job/JobLost.old.avsc"] {
        assert_eq!(SchemaPath::parse(other), None, "{other}");
    }
}
