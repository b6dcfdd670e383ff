//! The file service, as a runner sees it.
//!
//! The invariant: every call is made for the job's organization, so a job reads and writes only what is its own.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{
    Body, Method, Response, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION},
};
use serde::Deserialize;
use service_kit::http_client::{Call, Peer, PeerError};
use uuid::Uuid;

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

const TUS_VERSION: &str = "1.0.0";

/// A file, of which only the name matters here.
#[derive(Deserialize)]
struct File {
    name: String,
}

/// A file to be uploaded.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    pub(crate) name: &'a str,
    pub(crate) media_type: &'a str,
    pub(crate) bytes: u64,
}

/// The file service, asked for one job.
#[derive(Debug, Clone)]
pub(crate) struct FileService {
    peer: Peer,
    organization_id: Uuid,
    job_id: Uuid,
}

impl FileService {
    pub(crate) fn new(peer: Peer, organization_id: Uuid, job_id: Uuid) -> Self {
        Self { peer, organization_id, job_id }
    }

    /// Asks whether a file is there, complete: this is answered from what happened, not from a read model that may be late.
    pub(crate) async fn require(&self, file: Uuid) -> Result<(), PeerError> {
        self.call(Method::HEAD, &format!("files/{file}/content")).send().await?;
        Ok(())
    }

    /// The name of a file that is there. While the read model doesn't know it, the answer is one that may pass.
    pub(crate) async fn name(&self, file: Uuid) -> Result<String, PeerError> {
        let file: File = self.call(Method::GET, &format!("files/{file}?min_version=1")).receive().await?;
        Ok(file.name)
    }

    /// A file's content, to be streamed.
    pub(crate) async fn content(&self, file: Uuid) -> Result<Response, PeerError> {
        self.call(Method::GET, &format!("files/{file}/content")).streaming().send().await
    }

    /// Begins an upload and gives its id, which will be the file's.
    pub(crate) async fn create_upload(&self, file: &NewFile<'_>, key: &str) -> Result<Uuid, PeerError> {
        let job = self.job_id.to_string();
        let metadata = [("filename", file.name), ("filetype", file.media_type), ("produced_by_job", &job)];
        let metadata = metadata.map(|(key, value)| format!("{key} {}", STANDARD.encode(value))).join(",");
        let call = self.tus(Method::POST, "uploads").idempotency_key(key);
        let call = call.header(UPLOAD_LENGTH, &file.bytes.to_string()).header(UPLOAD_METADATA, &metadata);
        let response = call.send().await?;
        let location = header(&response, &LOCATION)?;
        let id = location.trim_end_matches('/').rsplit('/').next().and_then(|id| Uuid::parse_str(id).ok());
        id.ok_or_else(|| malformed(response.url(), &LOCATION))
    }

    /// Sends a part that begins at `offset`, and gives the offset after it.
    pub(crate) async fn append(&self, upload: Uuid, offset: u64, bytes: u64, part: Body) -> Result<u64, PeerError> {
        let call = self.tus(Method::PATCH, &format!("uploads/{upload}"));
        let call = call.header(CONTENT_TYPE, "application/offset+octet-stream");
        let call = call.header(UPLOAD_OFFSET, &offset.to_string()).header(CONTENT_LENGTH, &bytes.to_string());
        offset_of(&call.body(part).streaming().send().await?)
    }

    /// How much of an upload is stored.
    pub(crate) async fn offset(&self, upload: Uuid) -> Result<u64, PeerError> {
        offset_of(&self.tus(Method::HEAD, &format!("uploads/{upload}")).send().await?)
    }

    fn tus(&self, method: Method, path: &str) -> Call {
        self.call(method, path).header(TUS_RESUMABLE, TUS_VERSION)
    }

    fn call(&self, method: Method, path: &str) -> Call {
        let path = format!("/api/v1/organizations/{}/{path}", self.organization_id);
        self.peer.call(method, &path).acting_for(self.organization_id)
    }
}

fn offset_of(response: &Response) -> Result<u64, PeerError> {
    let offset = header(response, &UPLOAD_OFFSET)?;
    offset.parse().map_err(|_| malformed(response.url(), &UPLOAD_OFFSET))
}

fn header<'a>(response: &'a Response, name: &HeaderName) -> Result<&'a str, PeerError> {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| malformed(response.url(), name))
}

fn malformed(url: &Url, name: &HeaderName) -> PeerError {
    PeerError::Malformed { url: url.clone(), detail: format!("header {name} of the answer is missing or malformed") }
}
