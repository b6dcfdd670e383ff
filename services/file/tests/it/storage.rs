//! Part objects in the storage, recorded and unrecorded.

use bytes::Bytes;
use epoch::{Repository, Timestamp};
use epoch_postgres::PgStore;
use file::{
    domain::{file::File, range::PartSlice},
    storage::{PartStore, StorageError},
    sweep::sweep,
};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::support::{MIB, Uploads, content};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweep_deletes_only_old_unrecorded_parts() {
    let uploads = Uploads::start().await;
    let bytes = content(7 * MIB);
    let (file, unfinished) = (uploads.upload("a", &bytes).await, uploads.create("b", 10).await);
    uploads.patch(unfinished, 0, "abc").send().await.is(204);
    let parts = PartStore::in_directory(&uploads.directory).unwrap();
    // Objects as a crash leaves them: a stored but unrecorded part, and a partly written one.
    let unknown_file = Uuid::now_v7();
    for owner in [file, unfinished, unknown_file] {
        let mut orphan = parts.create_part(owner);
        orphan.write(&Bytes::from_static(b"orphan")).await.unwrap();
        orphan.finish().await.unwrap();
    }
    let incomplete = uploads.directory.join(format!("parts/{file}/{}#1", Uuid::now_v7()));
    std::fs::write(&incomplete, b"half").unwrap();
    let count = || [file, unfinished, unknown_file].map(|owner| uploads.objects(owner).len());
    assert_eq!(count(), [4, 2, 1]);

    let (store, _) = PgStore::new(uploads.service.pool.clone(), epoch::FastPath::new());
    let files = Repository::<File, _>::new(store);
    let an_hour_ago = Timestamp::from_millis(Timestamp::now().as_millis() - 3_600_000);
    assert_eq!(sweep(&files, &parts, an_hour_ago).await.unwrap(), 0);
    assert_eq!(count(), [4, 2, 1], "a recent part may still be recorded");
    let in_an_hour = Timestamp::from_millis(Timestamp::now().as_millis() + 3_600_000);
    assert_eq!(sweep(&files, &parts, in_an_hour).await.unwrap(), 4);
    assert_eq!(count(), [2, 1, 0]);
    assert!(uploads.content(file).await.expect(200).bytes == bytes, "the content differs");
    uploads.patch(unfinished, 3, "defghij").send().await.is(204);
    assert_eq!(uploads.content(unfinished).await.expect(200).bytes, "abcdefghij");
    uploads.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_is_visible_only_when_finished() {
    let directory = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(Uuid::now_v7().to_string());
    let parts = PartStore::in_directory(&directory).unwrap();
    let file = Uuid::now_v7();
    let bytes = content(11 * MIB);
    let listed = || async { parts.list().try_collect::<Vec<_>>().await.unwrap() };
    let mut discarded = parts.create_part(file);
    discarded.write(&Bytes::from(bytes.clone())).await.unwrap();
    assert_eq!(listed().await, [], "an unfinished part is invisible");
    discarded.discard().await;
    let mut part = parts.create_part(file);
    for chunk in bytes.chunks(100_000) {
        part.write(&Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    let stored = part.finish().await.unwrap();
    assert_eq!(stored.bytes, bytes.len() as u64);
    let listed_parts = listed().await;
    assert_eq!(
        listed_parts.iter().map(|object| (object.file, object.part_id)).collect::<Vec<_>>(),
        [(file, stored.part_id)]
    );

    let read = |range| async {
        let slices = vec![PartSlice { part_id: stored.part_id, range }];
        parts
            .read(file, slices)
            .try_fold(Vec::new(), async |mut all, chunk| {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
    };
    assert!(read(5..stored.bytes).await.unwrap() == bytes[5..]);
    // A truncated object is an error, not a short download.
    assert!(matches!(read(0..stored.bytes + 1).await, Err(StorageError::Truncated { .. })));
    parts.delete(file, stored.part_id).await.unwrap();
    parts.delete(file, stored.part_id).await.unwrap();
    assert_eq!(listed().await, []);
    assert!(matches!(read(0..1).await, Err(StorageError::Store(_))));
    std::fs::remove_dir_all(directory).unwrap();
}
