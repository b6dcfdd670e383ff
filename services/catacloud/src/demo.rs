//! Creates demo data through the public API.
//!
//! Each step has a fixed `Idempotency-Key`, so a second run returns the existing data.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// Settings of the `demo` subcommand.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Address of the gateway
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Key of the platform administrator, for example from .dev/up/env
    #[arg(long, env = "CATACLOUD_ADMIN_KEY", hide_env_values = true)]
    admin_key: String,
}

/// Longest time for the demo job to finish.
const JOB_LIMIT: Duration = Duration::from_secs(60);

/// Client of the public API.
struct ApiClient {
    client: Client,
    url: String,
    key: String,
}

impl ApiClient {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let response = self.request(Method::GET, path).send().await?;
        Ok(require_success(response, path).await?.json().await?)
    }

    /// Posts a command under an idempotency key and returns the response body.
    async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Value> {
        let request = self.request(Method::POST, path).header("idempotency-key", format!("demo-{key}"));
        let request = if body.is_null() { request } else { request.json(body) };
        Ok(require_success(request.send().await?, path).await?.json().await?)
    }
}

/// Returns the response, or an error with its body when the status is not 2xx.
async fn require_success(response: Response, path: &str) -> Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    bail!("{path}: {status}: {}", response.text().await?)
}

/// Creates an organization, a job configuration, a file and a finished job, and prints their ids and an API key.
pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let mut client =
        ApiClient { client: Client::new(), url: args.url.trim_end_matches('/').to_owned(), key: args.admin_key };
    let organization = json!({ "name": "Demo", "owner": { "email": "demo@example.com", "name": "Demo" } });
    let created = client.post("/api/v1/organizations", "organization", &organization).await?;
    let organization = text(&created, "id")?;
    let base = format!("/api/v1/organizations/{organization}");
    let role = json!({ "name": "demo", "role": "admin" });
    client.key = text(&client.post(&format!("{base}/api-keys"), "api-key", &role).await?, "key")?;
    let configuration = json!({
        "name": "Checksum and size",
        "command": ["sh", "-c", "sha256sum inputs/* > outputs/checksums.txt && wc -l inputs/*"],
        "timeout_ms": 60_000,
    });
    let configuration = client.post(&format!("{base}/job-configurations"), "configuration", &configuration).await?;
    let file = upload(&client, &base).await?;
    let job = json!({
        "job_configuration_id": text(&configuration, "id")?, "name": "First job", "file_ids": [file],
    });
    let job = text(&client.post(&format!("{base}/jobs"), "job", &job).await?, "id")?;
    client.post(&format!("{base}/jobs/{job}/queue"), "queue", &Value::Null).await?;
    let status = wait_until_finished(&client, &format!("{base}/jobs/{job}")).await?;
    if status != "succeeded" {
        bail!("the demo job ended with status {status}");
    }
    println!("organization={organization}\napi_key={}\njob={job}", client.key);
    Ok(())
}

/// Uploads a file of about 200 kB by the tus protocol and returns its id. Resumes an interrupted upload.
async fn upload(client: &ApiClient, base: &str) -> Result<String> {
    let content: String = (0..20_000).map(|row| format!("{row},{}\n", (row * 7919) % 1_000)).collect();
    // File name `measurements.csv` and type `text/csv`, in Base64 as tus requires.
    let metadata = "filename bWVhc3VyZW1lbnRzLmNzdg==,filetype dGV4dC9jc3Y=";
    let request = client
        .request(Method::POST, &format!("{base}/uploads"))
        .header("tus-resumable", "1.0.0")
        .header("idempotency-key", "demo-upload")
        .header("upload-length", content.len())
        .header("upload-metadata", metadata);
    let created = require_success(request.send().await?, "uploads").await?;
    let location = created
        .headers()
        .get("location")
        .context("response of the upload has no Location header")?
        .to_str()?
        .to_owned();
    let head = client.request(Method::HEAD, &location).header("tus-resumable", "1.0.0").send().await?;
    let head = require_success(head, &location).await?;
    let offset: usize = head
        .headers()
        .get("upload-offset")
        .context("response of the upload has no Upload-Offset header")?
        .to_str()?
        .parse()?;
    if offset < content.len() {
        let rest = content.get(offset..).unwrap_or_default().to_owned();
        let request = client
            .request(Method::PATCH, &location)
            .header("tus-resumable", "1.0.0")
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", offset)
            .body(rest);
        require_success(request.send().await?, &location).await?;
    }
    location.rsplit('/').next().map(str::to_owned).context("Location of the upload has no id")
}

/// Waits for the job to end and returns its status.
async fn wait_until_finished(client: &ApiClient, path: &str) -> Result<String> {
    let wait = async {
        loop {
            let job = client.get(path).await?;
            let status = text(&job, "status")?;
            if !matches!(status.as_str(), "created" | "queued" | "assigned" | "running") {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(JOB_LIMIT, wait).await.context("the demo job did not finish within 60 seconds")?
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("field {field} is missing in {value}"))
}
