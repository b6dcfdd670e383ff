//! Decisions of the file aggregate, by example and for random commands.

use contracts::file::{
    FileDeleted, FileEvent, FilePartUploaded, FileUploadAborted, FileUploadCompleted, FileUploadStarted,
};
use epoch::{
    Aggregate, CommandContext, ExecuteError, Repository, Version,
    memory::MemoryStore,
    store::Streamer,
    testkit::{Given, given},
};
use file::domain::file::{File, FileCommand, FileError, MAX_BYTES, RecordPart, StartUpload, Status};
use futures::TryStreamExt;
use proptest::prelude::*;
use uuid::Uuid;

const ORGANIZATION: Uuid = Uuid::from_u128(1);

fn start(declared_bytes: u64) -> FileCommand {
    FileCommand::Start(StartUpload {
        organization: ORGANIZATION,
        name: " a.csv ".to_owned(),
        content_type: "text/csv".to_owned(),
        declared_bytes,
        produced_by_job: None,
    })
}

fn part(number: u128, offset: u64, bytes: u64) -> FileCommand {
    FileCommand::RecordPart(RecordPart { part_id: Uuid::from_u128(number), offset, bytes, sha256: [0xab; 32] })
}

fn started(declared_bytes: i64) -> FileEvent {
    let (name, content_type) = ("a.csv".to_owned(), "text/csv".to_owned());
    FileUploadStarted { organization_id: ORGANIZATION, name, content_type, declared_bytes, produced_by_job: None }
        .into()
}

fn uploaded(number: u128, offset: i64, bytes: i64) -> FileEvent {
    let (part_id, sha256) = (Uuid::from_u128(number), "ab".repeat(32));
    FilePartUploaded { organization_id: ORGANIZATION, part_id, offset, bytes, sha256 }.into()
}

fn completed(bytes: i64) -> FileEvent {
    FileUploadCompleted { organization_id: ORGANIZATION, bytes }.into()
}

fn aborted(bytes: i64) -> FileEvent {
    FileUploadAborted { organization_id: ORGANIZATION, bytes }.into()
}

fn deleted(bytes: i64) -> FileEvent {
    FileDeleted { organization_id: ORGANIZATION, bytes }.into()
}

fn uploading() -> Given<File> {
    given([started(10), uploaded(1, 0, 4)])
}

fn complete() -> Given<File> {
    given([started(10), uploaded(1, 0, 4), uploaded(2, 4, 6), completed(10)])
}

#[test]
fn last_part_completes_file() {
    let file = given::<File>([]).when(&start(10)).then([started(10)]);
    let file = file.when(&part(1, 0, 4)).then([uploaded(1, 0, 4)]);
    let file = file.when(&part(2, 4, 6)).then([uploaded(2, 4, 6), completed(10)]);
    assert_eq!((file.state().status, file.state().received, file.state().parts.len()), (Status::Complete, 10, 2));
}

#[test]
fn empty_file_completes_at_start() {
    let file = given::<File>([]).when(&start(0)).then([started(0), completed(0)]);
    file.when(&FileCommand::Delete).then([deleted(0)]);
}

#[test]
fn invalid_start_is_rejected() {
    given::<File>([]).when(&start(MAX_BYTES + 1)).then_rejected(|error| *error == FileError::TooLarge);
    let _ = given::<File>([]).when(&start(MAX_BYTES)).then([started(5 << 40)]);
    uploading().when(&start(10)).then_rejected(|error| *error == FileError::AlreadyStarted);
    let with = |change: fn(&mut StartUpload)| {
        let FileCommand::Start(mut upload) = start(1) else { unreachable!() };
        change(&mut upload);
        given::<File>([]).when(&FileCommand::Start(upload))
    };
    with(|upload| upload.name = "..".to_owned()).then_rejected(|error| matches!(error, FileError::Name(_)));
    with(|upload| upload.content_type = "csv".to_owned())
        .then_rejected(|error| matches!(error, FileError::ContentType(_)));
}

#[test]
fn part_at_wrong_offset_is_rejected() {
    for offset in [0, 3, 5, u64::MAX] {
        uploading()
            .when(&part(2, offset, 1))
            .then_rejected(|error| *error == FileError::OffsetMismatch { expected: 4 });
    }
}

#[test]
fn part_beyond_declared_size_is_rejected() {
    for bytes in [7, u64::MAX] {
        uploading()
            .when(&part(2, 4, bytes))
            .then_rejected(|error| *error == FileError::ExceedsDeclared { declared: 10 });
    }
    complete().when(&part(3, 10, 1)).then_rejected(|error| *error == FileError::ExceedsDeclared { declared: 10 });
}

#[test]
fn empty_or_repeated_part_is_no_op() {
    uploading().when(&part(2, 4, 0)).then_nothing();
    uploading().when(&part(1, 0, 4)).then_nothing();
    complete().when(&part(2, 4, 6)).then_nothing();
}

#[test]
fn abort_needs_upload_and_delete_needs_file() {
    let aborted_file = uploading().when(&FileCommand::Abort).then([aborted(4)]);
    assert!(aborted_file.state().parts.is_empty());
    let deleted = complete().when(&FileCommand::Delete).then([deleted(10)]);
    assert!(deleted.state().parts.is_empty());
    uploading().when(&FileCommand::Delete).then_rejected(|error| *error == FileError::NotComplete);
    complete().when(&FileCommand::Abort).then_rejected(|error| *error == FileError::AlreadyComplete);
    for file in [given([]), aborted_file, deleted] {
        for command in [FileCommand::Abort, FileCommand::Delete, part(9, 0, 1)] {
            file.clone().when(&command).then_rejected(|error| *error == FileError::NotFound);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A part at the offset of the upload plus `shift`.
    Part {
        number: u128,
        shift: i64,
        bytes: u64,
    },
    Abort,
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u128..12, prop_oneof![4 => Just(0_i64), 1 => -5_i64..5], 0_u64..12)
            .prop_map(|(number, shift, bytes)| Step::Part { number, shift, bytes }),
        1 => Just(Step::Abort),
        1 => Just(Step::Delete),
    ]
}

proptest! {
    #[test]
    fn stored_bytes_equal_uploaded_minus_discarded(
        declared in 0_u64..40,
        steps in prop::collection::vec(step(), 0..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (store, id) = (MemoryStore::new(), Uuid::from_u128(99));
            let files = Repository::<File, _>::new(store.clone());
            let context = CommandContext::new();
            let mut version = files.create(id, &start(declared), &context).await.unwrap().version;
            for step in steps {
                let state = files.load(id).await.unwrap().state;
                let command = match step {
                    Step::Part { number, shift, bytes } => part(number, state.received.saturating_add_signed(shift), bytes),
                    Step::Abort => FileCommand::Abort,
                    Step::Delete => FileCommand::Delete,
                };
                match files.execute(id, &command, &CommandContext::new()).await {
                    Ok(executed) => {
                        assert_eq!(executed.version, version.after(executed.appended));
                        version = executed.version;
                    }
                    Err(ExecuteError::Rejected(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                assert_consistent(&store, &files, id, version).await;
            }
        });
    }
}

/// Checks the aggregate against its stream.
async fn assert_consistent(store: &MemoryStore, files: &Repository<File, MemoryStore>, id: Uuid, version: Version) {
    let events: Vec<_> = store.stream(File::NAME, id, Version::ZERO).try_collect().await.unwrap();
    let loaded = files.load(id).await.unwrap();
    let fresh = Repository::<File, _>::new(store.clone()).load(id).await.unwrap();
    assert_eq!((loaded.version, fresh.version), (version, version));
    assert_eq!(loaded.state, fresh.state);
    assert_eq!(events.len() as u64, version.get());
    let mut stored = 0;
    for event in events {
        match event.decode::<FileEvent>().unwrap() {
            FileEvent::FilePartUploaded(part) => {
                assert_eq!(part.offset, stored, "parts are gapless");
                stored += part.bytes;
            }
            FileEvent::FileUploadAborted(aborted) => stored -= aborted.bytes,
            FileEvent::FileDeleted(deleted) => stored -= deleted.bytes,
            FileEvent::FileUploadCompleted(completed) => assert_eq!(completed.bytes, stored, "all bytes are stored"),
            FileEvent::FileUploadStarted(_) => {}
        }
    }
    let state = &loaded.state;
    assert_eq!(state.received, stored as u64);
    assert_eq!(state.parts.iter().map(|part| part.bytes).sum::<u64>(), state.received);
    assert!(state.received <= state.declared);
    assert_eq!(state.status == Status::Complete, state.exists() && state.received == state.declared);
}
