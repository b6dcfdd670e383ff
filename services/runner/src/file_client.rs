//! Client of the file service.
//!
//! Every call acts for the job's organization, so a job can reach files of its own organization only.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{
    Body, Method, Response, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION},
};
use serde::Deserialize;
use service_host::peer::{Call, Peer, PeerError};
use uuid::Uuid;

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

const TUS_VERSION: &str = "1.0.0";

/// The part of a file response that the runner needs.
#[derive(Deserialize)]
struct FileResponse {
    name: String,
}

/// Metadata of an upload.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    pub(crate) name: &'a str,
    pub(crate) media_type: &'a str,
    pub(crate) bytes: u64,
}

/// Calls the file service on behalf of one job.
#[derive(Debug, Clone)]
pub(crate) struct FileClient {
    peer: Peer,
    organization_id: Uuid,
    job_id: Uuid,
}

impl FileClient {
    pub(crate) fn new(peer: Peer, organization_id: Uuid, job_id: Uuid) -> Self {
        Self { peer, organization_id, job_id }
    }

    /// Checks that a file is complete. The file service decides this from events, not from a read model that may lag.
    pub(crate) async fn require_complete(&self, file: Uuid) -> Result<(), PeerError> {
        self.call(Method::HEAD, &format!("files/{file}/content")).send().await?;
        Ok(())
    }

    /// Returns the name of a complete file. Fails with a transient error while the read model lags.
    pub(crate) async fn name(&self, file: Uuid) -> Result<String, PeerError> {
        let file: FileResponse = self.call(Method::GET, &format!("files/{file}?min_version=1")).receive().await?;
        Ok(file.name)
    }

    /// Returns the content of a file as a stream.
    pub(crate) async fn content(&self, file: Uuid) -> Result<Response, PeerError> {
        self.call(Method::GET, &format!("files/{file}/content")).streaming().send().await
    }

    /// Creates an upload and returns its id, which is also the id of the file.
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

    /// Sends a part that begins at `offset`, and returns the offset after it.
    pub(crate) async fn append(&self, upload: Uuid, offset: u64, bytes: u64, part: Body) -> Result<u64, PeerError> {
        let call = self.tus(Method::PATCH, &format!("uploads/{upload}"));
        let call = call.header(CONTENT_TYPE, "application/offset+octet-stream");
        let call = call.header(UPLOAD_OFFSET, &offset.to_string()).header(CONTENT_LENGTH, &bytes.to_string());
        offset_header(&call.body(part).streaming().send().await?)
    }

    /// Returns the stored length of an upload, in bytes.
    pub(crate) async fn offset(&self, upload: Uuid) -> Result<u64, PeerError> {
        offset_header(&self.tus(Method::HEAD, &format!("uploads/{upload}")).send().await?)
    }

    fn tus(&self, method: Method, path: &str) -> Call {
        self.call(method, path).header(TUS_RESUMABLE, TUS_VERSION)
    }

    fn call(&self, method: Method, path: &str) -> Call {
        let path = format!("/api/v1/organizations/{}/{path}", self.organization_id);
        self.peer.call(method, &path).acting_for(self.organization_id)
    }
}

fn offset_header(response: &Response) -> Result<u64, PeerError> {
    let offset = header(response, &UPLOAD_OFFSET)?;
    offset.parse().map_err(|_| malformed(response.url(), &UPLOAD_OFFSET))
}

fn header<'a>(response: &'a Response, name: &HeaderName) -> Result<&'a str, PeerError> {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| malformed(response.url(), name))
}

fn malformed(url: &Url, name: &HeaderName) -> PeerError {
    PeerError::Malformed { url: url.clone(), detail: format!("response header {name} is missing or malformed") }
}
