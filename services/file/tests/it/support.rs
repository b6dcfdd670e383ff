//! The service under test and a tus client.

use std::path::PathBuf;

use axum::{body::Body, http::Method};
use base64::{Engine, engine::general_purpose::STANDARD};
use epoch::Repository;
use epoch_postgres::PgStore;
use file::{FileService, domain::file::File, storage::PartStore};
use http_kit::{Caller, Role};
use service_host::{
    service::{Service, ServiceContext, ServiceError, ServiceParts},
    testkit::{TestRequest, TestResponse, TestService},
};
use sqlx::migrate::Migrator;
use uuid::Uuid;

/// Small enough that tests have several parts, and larger than one write of the storage.
pub(crate) const PART_BYTES: u64 = 6 * 1024 * 1024;

pub(crate) const MIB: usize = 1024 * 1024;

/// The service with a separate data directory for each database.
pub(crate) struct FileUnderTest;

impl Service for FileUnderTest {
    const NAME: &'static str = FileService::NAME;
    const PORT: u16 = FileService::PORT;

    fn migrations() -> &'static Migrator {
        FileService::migrations()
    }

    fn schemas() -> Vec<&'static str> {
        FileService::schemas()
    }

    fn assemble(host: &ServiceContext) -> Result<ServiceParts, ServiceError> {
        let options = host.pool().connect_options();
        let directory = directory(options.get_database().expect("a database"));
        let parts = PartStore::in_directory(&directory).map_err(ServiceError::failed)?.with_part_bytes(PART_BYTES);
        Ok(file::assemble(host, &parts))
    }
}

fn directory(database: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(database)
}

/// A running service and a member of an organization.
pub(crate) struct Uploads {
    pub(crate) service: TestService,
    pub(crate) organization: Uuid,
    pub(crate) member: Caller,
    pub(crate) directory: PathBuf,
}

impl Uploads {
    pub(crate) async fn start() -> Self {
        let service = TestService::start::<FileUnderTest>().await;
        let directory = directory(service.database.options().get_database().unwrap());
        let organization = Uuid::now_v7();
        Self { service, organization, member: member(organization), directory }
    }

    pub(crate) async fn close(self) {
        self.service.close().await;
        std::fs::remove_dir_all(self.directory).unwrap();
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/api/v1/organizations/{}/{rest}", self.organization)
    }

    /// Returns a request with the tus version header.
    pub(crate) fn tus(&self, method: Method, rest: &str) -> TestRequest<'_> {
        self.service.request(method, self.path(rest)).by(&self.member).header("tus-resumable", "1.0.0")
    }

    /// Returns a request that creates an upload.
    pub(crate) fn creation(&self, name: &str, bytes: usize) -> TestRequest<'_> {
        self.tus(Method::POST, "uploads")
            .header("upload-length", &bytes.to_string())
            .header("upload-metadata", &metadata(name))
    }

    pub(crate) async fn create(&self, name: &str, bytes: usize) -> Uuid {
        id(&self.creation(name, bytes).send_unchanged().await.expect(201))
    }

    /// Returns a request that appends bytes.
    pub(crate) fn patch(&self, upload: Uuid, offset: usize, body: impl Into<Body>) -> TestRequest<'_> {
        self.tus(Method::PATCH, &format!("uploads/{upload}"))
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", &offset.to_string())
            .body(body)
    }

    /// Returns the offset of an upload from HEAD.
    pub(crate) async fn offset(&self, upload: Uuid) -> usize {
        let head = self.tus(Method::HEAD, &format!("uploads/{upload}")).send().await.expect(200);
        head.header("upload-offset").parse().unwrap()
    }

    /// Uploads a complete file.
    pub(crate) async fn upload(&self, name: &str, content: &[u8]) -> Uuid {
        let upload = self.create(name, content.len()).await;
        self.patch(upload, 0, content.to_vec()).send().await.is(204);
        upload
    }

    pub(crate) fn get(&self, rest: &str) -> TestRequest<'_> {
        self.service.get(self.path(rest)).by(&self.member)
    }

    pub(crate) async fn content(&self, file: Uuid) -> TestResponse {
        self.get(&format!("files/{file}/content")).send().await
    }

    /// Returns the number of stored events.
    pub(crate) async fn events(&self) -> i64 {
        sqlx::query_scalar("select count(*) from events").fetch_one(&self.service.pool).await.unwrap()
    }

    /// Returns the event names of a file.
    pub(crate) async fn history(&self, file: Uuid) -> Vec<String> {
        sqlx::query_scalar("select event_name from events where aggregate_id = $1 order by version")
            .bind(file)
            .fetch_all(&self.service.pool)
            .await
            .unwrap()
    }

    /// Returns all paths in a file's directory, including incomplete objects.
    pub(crate) fn objects(&self, file: Uuid) -> Vec<PathBuf> {
        match std::fs::read_dir(self.directory.join("parts").join(file.to_string())) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Returns the aggregate, folded from its stream.
    pub(crate) async fn state(&self, file: Uuid) -> File {
        let (store, _) = PgStore::new(self.service.pool.clone(), epoch::FastPath::new());
        let loaded = Repository::<File, _>::new(store).load(file).await.unwrap();
        loaded.state.as_ref().clone()
    }
}

pub(crate) fn member(organization: Uuid) -> Caller {
    Caller::key(Uuid::from_u128(7), organization, Role::Member)
}

pub(crate) fn metadata(name: &str) -> String {
    format!("filename {},filetype {}", STANDARD.encode(name), STANDARD.encode("text/csv"))
}

/// Returns the id at the end of `Location`.
pub(crate) fn id(created: &TestResponse) -> Uuid {
    created.header("location").rsplit_once('/').unwrap().1.parse().unwrap()
}

/// Returns bytes without repetition, so that a wrong order or offset is visible.
pub(crate) fn content(bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(bytes).collect()
}

/// Returns a body that is sent in chunks of the given size.
pub(crate) fn chunked(content: &[u8], chunk: usize) -> Body {
    let chunks: Vec<_> = content.chunks(chunk).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    Body::from_stream(futures::stream::iter(chunks))
}

/// Returns a body that fails after the given bytes.
pub(crate) fn interrupted(content: &[u8]) -> Body {
    let mut chunks: Vec<_> = content.chunks(64 * 1024).map(|chunk| Ok(chunk.to_vec())).collect();
    chunks.push(Err(std::io::Error::other("connection reset by peer")));
    Body::from_stream(futures::stream::iter(chunks))
}
