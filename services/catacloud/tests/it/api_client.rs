//! A client of the public API.

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

/// Sends requests to the gateway with one key.
#[derive(Clone)]
pub(crate) struct ApiClient {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) key: String,
}

impl ApiClient {
    pub(crate) fn new(address: &str, key: &str) -> Self {
        Self { client: Client::new(), url: format!("http://{address}"), key: key.to_owned() }
    }

    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Builds a POST with a random `Idempotency-Key`, without a body when `body` is null.
    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.post_with_key(&Uuid::now_v7().to_string(), path, body)
    }

    /// Builds a POST with a given `Idempotency-Key`.
    pub(crate) fn post_with_key(&self, key: &str, path: &str, body: &Value) -> RequestBuilder {
        let request = self.request(Method::POST, path).header("idempotency-key", key);
        if body.is_null() { request } else { request.json(body) }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        read(self.request(Method::GET, path).send().await.unwrap(), 200).await
    }

    pub(crate) async fn create(&self, path: &str, body: &Value) -> Value {
        read(self.post(path, body).send().await.unwrap(), 201).await
    }

    pub(crate) async fn command(&self, path: &str, body: &Value) -> Value {
        read(self.post(path, body).send().await.unwrap(), 200).await
    }

    /// Creates an organization. Returns its id, and a client with a key of its owner.
    pub(crate) async fn create_organization(&self, name: &str) -> (String, ApiClient) {
        let owner = json!({ "email": format!("{}@example.com", Uuid::now_v7().simple()), "name": "Owner" });
        let created = self.create("/api/v1/organizations", &json!({ "name": name, "owner": owner })).await;
        let id = created["id"].as_str().unwrap().to_owned();
        let key = json!({ "name": "tests", "role": "owner" });
        let key = self.create(&format!("/api/v1/organizations/{id}/api-keys"), &key).await;
        let client = self.with_key(key["key"].as_str().unwrap());
        (id, client)
    }

    /// Creates an upload and returns its path.
    pub(crate) async fn start_upload(&self, organization: &str, length: usize) -> String {
        let response = self
            .request(Method::POST, &format!("/api/v1/organizations/{organization}/uploads"))
            .header("tus-resumable", "1.0.0")
            .header("upload-length", length)
            // input.bin, application/octet-stream
            .header("upload-metadata", "filename aW5wdXQuYmlu,filetype YXBwbGljYXRpb24vb2N0ZXQtc3RyZWFt")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    pub(crate) fn patch(&self, upload: &str, offset: usize, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::PATCH, upload)
            .header("tus-resumable", "1.0.0")
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", offset)
            .body(body)
    }

    /// Returns the offset of an upload.
    pub(crate) async fn offset(&self, upload: &str) -> usize {
        let response = self.request(Method::HEAD, upload).header("tus-resumable", "1.0.0").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.headers()["upload-offset"].to_str().unwrap().parse().unwrap()
    }

    /// Uploads a file in pieces and returns its id.
    pub(crate) async fn upload(&self, organization: &str, content: &[u8], piece: usize) -> String {
        let upload = self.start_upload(organization, content.len()).await;
        let mut offset = 0;
        for piece in content.chunks(piece) {
            let response = self.patch(&upload, offset, piece.to_vec()).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::NO_CONTENT);
            offset += piece.len();
        }
        upload.rsplit('/').next().unwrap().to_owned()
    }
}

pub(crate) async fn read(response: Response, status: u16) -> Value {
    let (actual, url) = (response.status(), response.url().clone());
    let text = response.text().await.unwrap();
    assert_eq!(actual.as_u16(), status, "{url}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
}
